//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weft-ws/weft/bench/internal/load"
	"github.com/weft-ws/weft/bench/internal/sys"
)

// The gateways are programs of their own, started as their users start them.

const supergatewayVersion = "4.0.0"

var supergateway = &contender{
	name:    "supergateway",
	version: supergatewayVersion,
	about:   "npm's supergateway in ws mode on Node, its log switched off (`--logLevel none`, which is faster than its default); one stdio server for all clients",
	launch: func(on cores, o options) (*server, error) {
		dir, err := cache("supergateway-" + supergatewayVersion)
		if err != nil {
			return nil, err
		}
		script := filepath.Join(dir, "node_modules", "supergateway", "dist", "index.js")
		if _, err := os.Stat(script); err != nil {
			return nil, errors.New("supergateway is not installed: it needs node, npm and the npm registry")
		}
		stdio, err := stdioCommand()
		if err != nil {
			return nil, err
		}
		addr, err := freePort()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("node", "--import", loopbackOnly, script, "--stdio", strings.Join(stdio, " "), "--outputTransport", "ws",
			"--port", strconv.Itoa(int(addr.Port())), "--messagePath", "/message", "--logLevel", "none")
		return launch(on, o, cmd, func(*bufio.Reader) (netip.AddrPort, string, error) {
			for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				c, err := load.Dial(addr, load.Options{Raw: true})
				if err == nil {
					c.Close()
					return addr, "/message", nil
				}
				if time.Now().After(end) {
					return addr, "", err
				}
			}
		})
	},
}

// loopbackOnly is a module for Node. supergateway listens on all addresses and
// has no option for another; a benchmark must not open a port to others.
var loopbackOnly = "data:text/javascript," + url.PathEscape(`import net from "node:net";
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
	return typeof port === "number" ? listen.call(this, port, "127.0.0.1", ...rest) : listen.call(this, port, ...rest);
};`)

var (
	weftShared     = weftGateway(ours, "shared", "`weft mcp serve --isolation shared`: one stdio server for all clients, as with supergateway; all checks on")
	weftConnection = weftGateway("weft-connection", "connection", "the same with `--isolation connection`, the default: a stdio server for each client")
	weftPool       = weftGateway("weft-pool", "pool", "the same with `--isolation pool`: a stdio server for each client, started in advance")
)

func weftGateway(name, isolation, about string) *contender {
	return &contender{
		name:  name,
		own:   name != ours,
		about: about,
		launch: func(on cores, o options) (*server, error) {
			dir, err := cache("weft")
			if err != nil {
				return nil, err
			}
			stdio, err := stdioCommand()
			if err != nil {
				return nil, err
			}
			args := []string{"mcp", "serve", "--listen", "127.0.0.1:0", "--no-auth", "--name", "bench", "--isolation", isolation}
			if o.MaxMessage > 0 {
				n := strconv.FormatInt(o.MaxMessage, 10)
				args = append(args, "--max-message", n, "--max-request", n)
			}
			cmd := exec.Command(filepath.Join(dir, "weft"), append(append(args, "--"), stdio...)...)
			return launch(on, o, cmd, func(out *bufio.Reader) (netip.AddrPort, string, error) {
				for {
					line, err := out.ReadString('\n')
					if err != nil {
						return netip.AddrPort{}, "", fmt.Errorf("%q: %w", line, err)
					}
					if _, at, ok := strings.Cut(line, "listening on ws://"); ok {
						host, path, _ := strings.Cut(strings.TrimSpace(at), "/")
						addr, err := netip.ParseAddrPort(host)
						return addr, "/" + path, err
					}
				}
			})
		},
	}
}

// cache is a directory that outlives the run.
func cache(name string) (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "weft-bench", name), err
}

// prepareMCP builds weft and installs supergateway, unless that was done. A
// machine without npm measures weft alone.
func prepareMCP() error {
	dir, err := cache("weft")
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/weft-ws/weft").Output()
	if err != nil {
		return fmt.Errorf("where is weft's source? %w", err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "weft"), "./cmd/weft")
	build.Dir = string(bytes.TrimSpace(root))
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building weft: %w\n%s", err, out)
	}
	if dir, err = cache("supergateway-" + supergatewayVersion); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "supergateway", "dist", "index.js")); err == nil {
		return nil
	}
	install := exec.Command("npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "supergateway@"+supergatewayVersion)
	if out, err := install.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "weft: bench: supergateway cannot be installed and is left out: %v\n%s", err, out)
	}
	return nil
}

// freePort finds a port for a program that cannot choose one itself.
func freePort() (netip.AddrPort, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer ln.Close()
	return netip.ParseAddrPort(ln.Addr().String())
}

// launch starts a program bound to the server's core, and all that it starts
// with it, or to both cores where o says so. ready reads what it says on standard error until it serves.
func launch(on cores, o options, cmd *exec.Cmd, ready func(*bufio.Reader) (netip.AddrPort, string, error)) (*server, error) {
	// A group of its own, so that an interrupt of ours reaches it through stop,
	// and an end with us should we be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	cores := []int{on.server}
	if o.BothCores {
		cores = append(cores, on.client)
	}
	if err := sys.Start(cmd, on.client, cores...); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, pid: cmd.Process.Pid, program: true}
	out := bufio.NewReader(stderr)
	if s.addr, s.path, err = ready(out); err != nil {
		s.stop()
		return nil, err
	}
	go io.Copy(io.Discard, out)
	return s, nil
}

// stopProgram ends a program by its process id, and what is left of its group.
func (s *server) stopProgram() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { syscall.Kill(-s.pid, syscall.SIGKILL) })
	defer kill.Stop()
	s.cmd.Wait()
}

// gateway lists the processes of the gateway: all it started but the stdio
// servers.
func (s *server) gateway() ([]int, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pids, err := sys.Tree(s.pid)
	var out []int
	for _, pid := range pids {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe != self {
			out = append(out, pid)
		}
	}
	return out, err
}

// gatewayMemory is what the gateway's processes have in memory, pages that
// several of them share counted once.
func (s *server) gatewayMemory() (float64, error) {
	pids, err := s.gateway()
	sum := int64(0)
	for _, pid := range pids {
		n, err := sys.Pss(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return float64(sum), err
}

// cpu is the processor time that the server has used: its own, and that of all
// processes it has started which still run.
func (s *server) cpu() (time.Duration, error) {
	if !s.program {
		return sys.CPU(s.pid)
	}
	pids, err := sys.Tree(s.pid)
	if err != nil {
		return 0, err
	}
	return sumCPU(pids), nil
}

// sumCPU adds up processor times; a process that has just ended has none.
func sumCPU(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		if d, err := sys.CPU(pid); err == nil {
			sum += d
		}
	}
	return sum
}
