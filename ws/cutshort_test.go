package ws

import (
	"errors"
	"io"
	"testing"
)

// A Close inside a message of the peer's own is legal. What was begun is lost,
// and whoever reads is told, also where a normal end is no error.
func TestEdgeCasesCloseInsideTheirMessageIsNotSilent(t *testing.T) {
	bubble(t, func(t *testing.T, role Role) {
		c, p, _ := setup{}.scripted(t, role)
		p.Send(`TEXT fin=0 "half"`, `CLOSE code=1000`)
		var seen []error
		for _, err := range c.Messages(background) {
			seen = append(seen, err)
		}
		if len(seen) != 1 || !errors.Is(seen[0], io.ErrUnexpectedEOF) {
			t.Errorf("Messages gave %v", seen)
		}
		if err := c.Drain(background); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Drain returned %v", err)
		}
		p.WantClose(CloseNormal, "the code is echoed")
		if err := c.Close(CloseNormal, ""); err != nil {
			t.Errorf("Close returned %v, though both Close frames were exchanged", err)
		}
	})
}
