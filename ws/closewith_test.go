package ws

import (
	"errors"
	"testing"
	"time"
)

// Config.CloseWith chooses what the peer is told about its mistake; what the
// application is told of the cause stays as it is.
func TestValidationCloseWith(t *testing.T) {
	for name, cs := range map[string]struct {
		send  []string
		cause func(error) bool
		code  CloseCode // without the hook
	}{
		"text":  {[]string{`TEXT x:ff`}, func(err error) bool { var v *ProtocolError; return errors.As(err, &v) }, CloseInvalidPayload},
		"limit": {[]string{`TEXT length=101`}, func(err error) bool { var l *LimitError; return errors.As(err, &l) }, CloseMessageTooBig},
		"time":  {[]string{`TEXT fin=0 "x"`}, func(err error) bool { var l *TimeoutError; return errors.As(err, &l) }, ClosePolicyViolation},
	} {
		bubble(t, func(t *testing.T, role Role) {
			asked := 0
			cfg := Config{MaxMessageSize: 100, MessageTimeout: time.Second, CloseWith: func(cause error, code CloseCode, reason string) (CloseCode, string) {
				asked++
				if !cs.cause(cause) || code != cs.code || reason == "" {
					t.Errorf("%s: asked about %v, %v %q", name, cause, code, reason)
				}
				return 4001, "as agreed"
			}}
			c, p, _ := setup{client: cfg, server: cfg}.scripted(t, role)
			read := reading(background, c)
			p.Send(cs.send...)
			if got := p.WantClose(4001, name); got != "as agreed" {
				t.Errorf("%s: reason %q", name, got)
			}
			p.Close()
			if r := now(t, read, ""); !cs.cause(r.err) {
				t.Errorf("%s: %v", name, r.err)
			}
			if asked != 1 {
				t.Errorf("%s: asked %d times", name, asked)
			}
		})
	}
}
