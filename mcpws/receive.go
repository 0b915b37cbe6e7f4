package mcpws

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weft-ws/weft/mcpws/envelope"
	"github.com/weft-ws/weft/ws"
)

// A Receiver turns the messages of one WebSocket connection into JSON-RPC
// messages and answers, by itself, what is none. It is what the transports of
// this package and the gateway have in common. One goroutine uses it.
type Receiver struct {
	dialect Dialect
	dec     envelope.Decoder
	send    func(msg []byte) error
	batches func() bool
	modern  bool
	bad     int
}

// NewReceiver returns a Receiver. Error answers go to send. batches says
// whether the peer may send arrays now: only in a session of the 2025-03-26
// revision. sizeMax bounds a message in Stream framing, where the engine's
// limit of a WebSocket message does not.
func NewReceiver(d Dialect, sizeMax int, batches func() bool, send func(msg []byte) error) *Receiver {
	return &Receiver{dialect: d, send: send, batches: batches,
		dec: envelope.Decoder{Framing: d.Framing, SizeMax: sizeMax}}
}

// batchMax bounds an array of messages.
const batchMax = 256

// Take reads one WebSocket message and calls each for the requests,
// notifications and answers in it. They are valid until each returns.
//
// A non-nil error means that the connection cannot go on; a *[ws.CloseError]
// in it says with which code and reason it is to be closed, see [CloseWith].
func (r *Receiver) Take(now time.Time, typ ws.MessageType, p []byte, each func(*envelope.Message) error) error {
	if typ == ws.Binary && r.dialect.Binary == BinaryReject {
		return closing(ws.CloseUnsupportedData, "binary message; MCP messages are text", nil)
	}
	err := r.dec.Feed(now, p, func(m *envelope.Message, err error) error {
		if err != nil {
			return r.fault(envelope.CodeParse, nil, err.Error())
		}
		return r.message(m, each)
	})
	var big *envelope.TooBigError
	var utf *envelope.UTF8Error
	switch {
	case errors.As(err, &big):
		return closing(ws.CloseMessageTooBig, big.Error(), err)
	case errors.As(err, &utf) && r.dialect.Errors == ErrorsClose:
		return closing(ws.CloseProtocolError, reasonUTF8, err)
	case errors.As(err, &utf):
		return closing(ws.CloseInvalidPayload, err.Error(), err)
	}
	return err
}

func (r *Receiver) message(m *envelope.Message, each func(*envelope.Message) error) error {
	switch m.Kind {
	case envelope.Invalid:
		return r.fault(envelope.CodeInvalidRequest, m.IDBytes(), m.Reason)
	case envelope.Batch:
		if r.batches == nil || !r.batches() {
			return r.fault(envelope.CodeInvalidRequest, nil, "an array of messages; MCP has had no batches since 2025-06-18")
		}
		elements, err := envelope.Elements(m, batchMax)
		if err != nil {
			return r.fault(envelope.CodeInvalidRequest, nil, err.Error())
		}
		for i := range elements {
			e := &elements[i]
			if e.Kind == envelope.Batch {
				e.Kind, e.Reason = envelope.Invalid, "a batch inside a batch"
			}
			if err := r.message(e, each); err != nil {
				return err
			}
		}
		return nil
	}
	r.bad = 0
	if m.Modern() {
		r.modern = true
	}
	return each(m)
}

// fault answers a message that cannot be read, or ends the connection.
func (r *Receiver) fault(code int, id []byte, why string) error {
	if r.dialect.Errors == ErrorsClose {
		return closing(ws.CloseProtocolError, reasonParse, nil)
	}
	r.bad++
	if max := r.dialect.BadMessagesMax; max > 0 && r.bad >= max {
		return closing(ws.ClosePolicyViolation, fmt.Sprintf("%d messages in a row that are not JSON-RPC", r.bad), nil)
	}
	era := envelope.Legacy
	if r.modern {
		era = envelope.Modern
	}
	return r.send(envelope.AppendError(nil, id, era, code, why))
}

// Deadline is when an unfinished message of the Stream framing is late; zero
// when there is none.
func (r *Receiver) Deadline() time.Time { return r.dec.Deadline() }

// Expire is called at Deadline and returns the error to close with.
func (r *Receiver) Expire(now time.Time) error {
	err := r.dec.Expire(now)
	switch {
	case err == nil:
		return nil
	case r.dialect.Errors == ErrorsClose:
		return closing(ws.CloseProtocolError, reasonLate, err)
	}
	return closing(ws.ClosePolicyViolation, err.Error(), err)
}

// Newline reports whether messages to the peer end with a line feed.
func (r *Receiver) Newline() bool {
	switch r.dialect.Newline {
	case NewlineAlways:
		return true
	case NewlineMirror:
		return r.dec.Newline()
	}
	return false
}

// Modern reports whether the peer speaks the 2026-07-28 era.
func (r *Receiver) Modern() bool { return r.modern }

func closing(code ws.CloseCode, reason string, cause error) error {
	return &ws.CloseError{Code: code, Reason: reason, Cause: cause}
}

// CloseWith closes c as an error of [Receiver.Take] demands: with the code and
// reason of a *ws.CloseError, else with 1011.
func CloseWith(c *ws.Conn, err error) {
	var ce *ws.CloseError
	if errors.As(err, &ce) {
		_ = c.Close(ce.Code, ce.Reason)
		return
	}
	_ = c.Close(ws.CloseInternalError, "")
}

// Next reads WebSocket messages from c until one of them holds JSON-RPC
// messages or the connection ends.
func (r *Receiver) Next(ctx context.Context, c *ws.Conn, each func(*envelope.Message) error) error {
	readCtx := ctx
	if at := r.Deadline(); !at.IsZero() {
		var cancel context.CancelFunc
		readCtx, cancel = context.WithDeadline(ctx, at)
		defer cancel()
	}
	typ, p, err := c.ReadMessage(readCtx)
	if err != nil {
		if late := r.Expire(time.Now()); late != nil && ctx.Err() == nil {
			CloseWith(c, late)
			return late
		}
		return err
	}
	if err := r.Take(time.Now(), typ, p, each); err != nil {
		CloseWith(c, err)
		return err
	}
	return nil
}
