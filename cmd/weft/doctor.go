package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
)

// doctorFlags are the flags of weft doctor.
type doctorFlags struct {
	all, json, hints         bool
	handshake                string
	clientMessage, serverMsg byteSize
	clientFrame, serverFrame byteSize
	opts                     doctor.Options
}

func newDoctorCmd() *cobra.Command {
	f := &doctorFlags{}
	cmd := &cobra.Command{
		Use:   "doctor FILE... | -",
		Short: "Find the first broken rule in a recorded connection",
		Long: `doctor reads what a connection put on the wire, as recorded with --trace, and
judges both directions by the rules listed in docs/rules.md. It prints the first
breach: where it is, the frames before it, the guilty bytes, and what is likely
behind it. Payload is not printed, beyond a guilty byte and its neighbours.

Several files are several connections; a handshake key used twice is found then.

Exit code: 0 nothing found, 1 something found, 2 could not look.`,
		Example: `  weft doctor session.trace
  weft doctor --all --hints session.trace
  weft doctor --json - < session.trace`,
		Args: takes(1, anyNumber, "the file of a recording, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.all, "all", false, "print every finding, not only the first")
	fs.BoolVar(&f.json, "json", false, "print one JSON object per file, with every finding")
	fs.BoolVar(&f.hints, "hints", false, "also look for what is legal but often a cause of trouble")
	fs.StringVar(&f.handshake, "handshake", "auto", "whether the recording begins with the HTTP upgrade: auto, yes or no")
	fs.StringVar(&f.opts.Extensions, "extensions", "", "Sec-WebSocket-Extensions that was agreed on, for a recording without the upgrade")
	fs.Var(&f.clientMessage, "client-max-message-size", "largest message that the client accepts (default: any)")
	fs.Var(&f.serverMsg, "server-max-message-size", "largest message that the server accepts (default: any)")
	fs.Var(&f.clientFrame, "client-max-frame-size", "largest frame that the client accepts (default: any)")
	fs.Var(&f.serverFrame, "server-max-frame-size", "largest frame that the server accepts (default: any)")
	fs.DurationVar(&f.opts.SilenceTime, "silence-timeout", 0, "silence after which an unfinished message counts as given up (default: the end of TCP decides)")
	fs.DurationVar(&f.opts.PongTime, "pong-timeout", 0, "time for a pong (default 30s; -1s: any)")
	fs.DurationVar(&f.opts.CloseTime, "close-timeout", 0, "time for the server to end TCP after both Close frames (default 10s; -1s: any)")
	fs.DurationVar(&f.opts.ReactTime, "react-timeout", 0, "time to close after something over a limit (default 5s; -1s: any)")
	fs.StringSliceVar(&f.opts.Ignore, "ignore", nil, "rules not to report, by id or name")
	return cmd
}

func (f *doctorFlags) run(cmd *cobra.Command, args []string) error {
	if f.handshake != "auto" && f.handshake != "yes" && f.handshake != "no" {
		return fmt.Errorf("--handshake is auto, yes or no, not %q", f.handshake)
	}
	for _, name := range f.opts.Ignore {
		if !isRule(name) {
			return fmt.Errorf("--ignore: no rule is called %q; docs/rules.md lists them", name)
		}
	}
	f.opts.Client = doctor.Limits{MessageSize: max(int64(f.clientMessage), 0), FrameSize: max(int64(f.clientFrame), 0)}
	f.opts.Server = doctor.Limits{MessageSize: max(int64(f.serverMsg), 0), FrameSize: max(int64(f.serverFrame), 0)}
	if f.hints {
		f.opts.Hints = &doctor.Hints{}
	}
	if len(args) > 1 {
		f.opts.Set = doctor.NewSet(0)
	}
	found := false
	var failed error
	for _, name := range args {
		in, cut, err := f.inspect(cmd, name)
		if err != nil {
			// What came before the fault is still worth saying.
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
		}
		if in == nil {
			continue
		}
		if cut {
			fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s: the last line is incomplete and was left out\n", name)
		}
		found = found || len(in.Findings()) > 0
		if err := f.print(cmd, name, in, err == nil); err != nil {
			return &exitError{code: 2, err: err}
		}
	}
	switch {
	case failed != nil:
		return &exitError{code: 2, err: failed}
	case found:
		return &exitError{code: 1}
	}
	return nil
}

func isRule(name string) bool {
	for r := range doctor.Rules() {
		if r.ID == name || r.Name == name {
			return true
		}
	}
	return false
}

// inspect judges one recording. The Inspector is nil if there was nothing to
// look at.
func (f *doctorFlags) inspect(cmd *cobra.Command, name string) (in *doctor.Inspector, cut bool, err error) {
	input := cmd.InOrStdin()
	size := int64(0)
	opts := f.opts
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, false, errors.Unwrap(err)
		}
		defer file.Close()
		if st, err := file.Stat(); err == nil {
			size = st.Size()
			if st.Mode().IsRegular() {
				if opts.Only, err = onlySide(file); err != nil {
					return nil, false, err
				}
			}
		}
		input = file
	}
	r, err := capture.NewReader(input)
	if err != nil {
		return nil, false, hinted(err, asCalled("weft dial --trace FILE URL")+" makes a recording, and so does --trace of other verbs")
	}
	show := newProgress(cmd.ErrOrStderr(), name, size)
	defer show.clear()
	opts.Source = name
	for c, err := range r.Chunks() {
		if err != nil {
			return in, r.Cut(), err
		}
		if in == nil {
			opts.Handshake = f.handshake == "yes" || f.handshake == "auto" && looksLikeHTTP(c.Data)
			in = doctor.New(opts)
		}
		in.Chunk(c)
		show.at(r.Offset())
	}
	if in == nil {
		in = doctor.New(opts)
	}
	if opts.Only != 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s: the %s's bytes alone are recorded; what takes both sides was not judged\n", name, opts.Only)
	}
	return in, r.Cut(), nil
}

// onlySide reports which side's bytes are the only ones in a file, or 0. It
// reads as far as it must, and goes back. What is wrong with the file comes up
// when it is read again.
func onlySide(file *os.File) (side capture.Side, err error) {
	if r, err := capture.NewReader(file); err == nil {
		for c, err := range r.Chunks() {
			if err != nil || side != 0 && c.From != side && len(c.Data) > 0 {
				side = 0
				break
			}
			if len(c.Data) > 0 {
				side = c.From
			}
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return side, err
}

// looksLikeHTTP reports whether bytes begin an HTTP head. A capital letter
// would be the header of a frame with reserved bits set.
func looksLikeHTTP(p []byte) bool { return len(p) > 0 && p[0] >= 'A' && p[0] <= 'Z' }

// print writes the result for one file. whole says that it was read to its end.
func (f *doctorFlags) print(cmd *cobra.Command, name string, in *doctor.Inspector, whole bool) error {
	out := cmd.OutOrStdout()
	if f.json {
		return f.printJSON(out, name, in)
	}
	findings := in.Findings()
	if len(findings) == 0 {
		if !whole {
			return nil
		}
		_, err := fmt.Fprintf(out, "%s: nothing found in %s from the client and %s from the server%s\n",
			name, frames(in.Frames(capture.Client)), frames(in.Frames(capture.Server)), blind(in))
		return err
	}
	if !f.all {
		first := firstFinding(findings)
		if err := findings[first].WriteText(out); err != nil {
			return err
		}
		if more := int64(len(findings)) - 1 + in.Lost(); more > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s: %d more found; --all prints them\n", name, more)
		}
		return nil
	}
	for i := range findings {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := findings[i].WriteText(out); err != nil {
			return err
		}
	}
	if n := in.Lost(); n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "weft: %s: and %d more\n", name, n)
	}
	return nil
}

// firstFinding is the first violation, else the first note, else the first hint.
func firstFinding(fs []doctor.Finding) int {
	best := 0
	for i := range fs {
		if fs[i].Severity < fs[best].Severity {
			best = i
		}
	}
	return best
}

func frames(n int64) string {
	if n == 1 {
		return "1 frame"
	}
	return strconv.FormatInt(n, 10) + " frames"
}

// blind says what was not judged, or not to its end, although nothing was found.
func blind(in *doctor.Inspector) string {
	for _, side := range []capture.Side{capture.Client, capture.Server} {
		if why := in.Blind(side); why != "" {
			return "; what follows was not judged: " + why
		}
	}
	for _, side := range []capture.Side{capture.Client, capture.Server} {
		if where := in.Unfinished(side); where != "" {
			return "; the bytes of the " + side.String() + " stop inside " + where
		}
	}
	if o := in.Opening(); in.Frames(capture.Client)+in.Frames(capture.Server)+o.RequestSize+o.ResponseSize == 0 {
		return "; no connection is recorded in it"
	}
	return ""
}

func (f *doctorFlags) printJSON(out io.Writer, name string, in *doctor.Inspector) error {
	type opening struct {
		Status      int    `json:"status"`
		Subprotocol string `json:"subprotocol,omitempty"`
		Extensions  string `json:"extensions,omitempty"`
	}
	type side struct {
		Frames int64  `json:"frames"`
		Blind  string `json:"not_judged,omitempty"`
	}
	result := struct {
		Source   string            `json:"source"`
		Opening  *opening          `json:"opening,omitempty"`
		Client   side              `json:"client"`
		Server   side              `json:"server"`
		Findings []*doctor.Finding `json:"findings"`
		Lost     int64             `json:"findings_lost,omitempty"`
	}{
		Source:   name,
		Client:   side{in.Frames(capture.Client), in.Blind(capture.Client)},
		Server:   side{in.Frames(capture.Server), in.Blind(capture.Server)},
		Findings: []*doctor.Finding{},
		Lost:     in.Lost(),
	}
	if o := in.Opening(); o.Status != 0 {
		result.Opening = &opening{o.Status, o.Subprotocol, o.Extensions}
	}
	for i := range in.Findings() {
		result.Findings = append(result.Findings, &in.Findings()[i])
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(result)
}

// progressMin is the size of a file in bytes from which progress is shown.
const progressMin = 32 << 20

// A progress says on a terminal how far a large file has been read.
type progress struct {
	w    io.Writer
	name string
	size int64
	next time.Time
	said int // characters on the line
}

func newProgress(w io.Writer, name string, size int64) *progress {
	p := &progress{w: w, name: name, size: size}
	if f, ok := w.(*os.File); !ok || size < progressMin || !term.IsTerminal(int(f.Fd())) {
		p.size = 0
	}
	return p
}

func (p *progress) at(offset int64) {
	if p.size == 0 {
		return
	}
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(time.Second / 4)
	line := fmt.Sprintf("weft: %s: %d %%", p.name, offset*100/p.size)
	fmt.Fprint(p.w, "\r"+line)
	p.said = len(line)
}

func (p *progress) clear() {
	if p.said > 0 {
		fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.said)+"\r")
	}
}
