package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-ws/weft/gateway"
)

// adminFlags say which gateway is meant.
type adminFlags struct {
	client clientFlags
	admin  string
}

func (f *adminFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.admin, "admin", "http://127.0.0.1:8080", "address of the gateway")
	cmd.Flags().StringVar(&f.client.tokenFile, "token-file", "", "file with the gateway's token (default: $"+tokenEnv+")")
	f.client.secure.add(cmd.Flags())
}

// ask sends a request to the administrative endpoint and decodes the answer.
func (f *adminFlags) ask(cmd *cobra.Command, method, path string, into any) error {
	base, err := adminURL(f.admin)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(cmd.Context(), method, base+path, nil)
	if err != nil {
		return err
	}
	token, err := f.client.token()
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	secure, err := f.client.secure.config()
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		if hint(err) != "" {
			return err
		}
		return hinted(err, "is a gateway running there? say --admin http://HOST:PORT")
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		err := fmt.Errorf("the gateway answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
		switch resp.StatusCode {
		case http.StatusUnauthorized:
			err = hinted(err, "set "+tokenEnv+" to the gateway's token")
		case http.StatusNotFound:
			err = &exitError{1, err}
		case http.StatusBadRequest:
			if strings.Contains(string(text), "HTTPS") {
				err = hinted(err, "write https:// instead of http://")
			}
		default:
			err = hinted(err, "is it a gateway of weft? say --admin http://HOST:PORT")
		}
		return err
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// adminURL makes the address of a gateway of what people have at hand: the URL
// of an MCP server is as good as HOST:PORT.
func adminURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err == nil && u.Host == "" {
		err = errors.New("it names no host")
	}
	if err != nil {
		return "", hinted(fmt.Errorf("--admin %q: %w", s, err), "say --admin http://HOST:PORT")
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return "", hinted(fmt.Errorf("--admin %q: the scheme is %s", s, u.Scheme), "say --admin http://HOST:PORT")
	}
	return u.Scheme + "://" + u.Host, nil
}

func newMCPLsCmd() *cobra.Command {
	var f adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the servers, sessions and calls in flight of a running gateway",
		Long: `ls asks the administrative endpoint of a running gateway what there is.

Exit code: 0, or 2 if the gateway could not be asked.`,
		Example: `  weft mcp ls
  weft mcp ls --admin http://127.0.0.1:9000 --json`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Servers  []gateway.ServerInfo  `json:"servers"`
				Sessions []gateway.SessionInfo `json:"sessions"`
			}
			if err := f.ask(cmd, http.MethodGet, "/admin/servers", &list.Servers); err != nil {
				return err
			}
			if err := f.ask(cmd, http.MethodGet, "/admin/sessions", &list.Sessions); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SERVER\tSTATE\tPID\tCLIENTS\tCALLS\tBACKEND")
			for _, s := range list.Servers {
				if len(s.Running) == 0 {
					fmt.Fprintf(w, "%s\tidle\t\t0\t0\t%s\n", s.Name, s.Backend)
				}
				for _, r := range s.Running {
					pid := ""
					if r.PID > 0 {
						pid = fmt.Sprint(r.PID)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", s.Name, r.State, pid, r.Clients, r.Calls, s.Backend)
				}
			}
			fmt.Fprintln(w, "\nSESSION\tSERVER\tPRINCIPAL\tREMOTE\tAGE\tCALLS")
			for _, s := range list.Sessions {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", s.ID, s.Route, s.Principal, s.Remote, time.Since(s.Opened).Round(time.Second), len(s.Calls))
				for _, c := range s.Calls {
					fmt.Fprintf(w, "  call %s\t%s\t\t\t%s\t\n", c.ID, c.Method, (time.Duration(c.Seconds * float64(time.Second))).Round(time.Millisecond))
				}
			}
			return w.Flush()
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newMCPKillCmd() *cobra.Command {
	var f adminFlags
	var server bool
	var call string
	cmd := &cobra.Command{
		Use:   "kill SESSION | kill SESSION --call ID | kill --server NAME",
		Short: "End a session, a call in flight or the processes of a server",
		Long: `kill ends one session of a running gateway, or one call of it (its id as weft mcp
ls shows it), or with --server the running processes of a server, which are
started again. What was in flight is answered with an error.

Exit code: 0, 1 if there is none of that name, 2 if the gateway could not be asked.`,
		Example: `  weft mcp kill 5f0c…
  weft mcp kill 5f0c… --call 7
  weft mcp kill --server git`,
		Args: takes(1, 1, "a session as weft mcp ls shows it, or --server and the name of a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := url.PathEscape(args[0])
			switch {
			case server && call != "":
				return errors.New("--server and --call exclude each other")
			case server:
				return f.ask(cmd, http.MethodDelete, "/admin/servers/"+id, nil)
			case call != "":
				return f.ask(cmd, http.MethodDelete, "/admin/sessions/"+id+"/calls?id="+url.QueryEscape(call), nil)
			}
			return f.ask(cmd, http.MethodDelete, "/admin/sessions/"+id, nil)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&server, "server", false, "the argument is the name of a server")
	cmd.Flags().StringVar(&call, "call", "", "end only the call with this id")
	return cmd
}
