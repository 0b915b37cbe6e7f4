//go:build linux

package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
)

var gobwas = &contender{
	name:   "gobwas",
	module: "github.com/gobwas/ws",
	about:  "UpgradeHTTP, then wsutil.ReadClientData and WriteServerMessage, as the first example of its README; compression as its compression example",
	modes: map[string]func(*child) error{
		modeEcho:      gobwasEcho,
		modeStream:    gobwasStream,
		modePush:      gobwasPush,
		modeBroadcast: gobwasBroadcast,
		modeClient:    gobwasClient,
	},
}

var gobwasTuned = &contender{
	name:    "gobwas-tuned",
	module:  "github.com/gobwas/ws",
	about:   "headers and payload through bufio of 16 KiB and a kept buffer, flushed when the input is used up; no check of text, no pings answered",
	variant: true,
	modes:   map[string]func(*child) error{modeEcho: gobwasTunedEcho},
}

// gobwasServe upgrades through net/http and runs f on a goroutine of its own,
// so that the request's memory is freed.
func gobwasServe(c *child, u ws.HTTPUpgrader, f func(net.Conn)) error {
	if c.MaxMessage > 0 {
		wsutil.SetMaxMessageSize(c.MaxMessage)
	}
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		conn, _, _, err := u.Upgrade(r, w)
		if err != nil {
			return // Upgrade has answered
		}
		go func() {
			defer conn.Close()
			f(conn)
		}()
	})
}

func gobwasEcho(c *child) error {
	if c.Deflate != "" {
		return gobwasDeflate(c)
	}
	return gobwasServe(c, ws.HTTPUpgrader{}, func(conn net.Conn) {
		for {
			msg, op, err := wsutil.ReadClientData(conn)
			if err != nil {
				return
			}
			if err := wsutil.WriteServerMessage(conn, op, msg); err != nil {
				return
			}
		}
	})
}

func gobwasDeflate(c *child) error {
	if c.MaxMessage > 0 {
		wsutil.SetMaxMessageSize(c.MaxMessage)
	}
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		e := wsflate.Extension{Parameters: wsflate.DefaultParameters}
		conn, _, _, err := ws.HTTPUpgrader{Negotiate: e.Negotiate}.Upgrade(r, w)
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for {
				h, err := ws.ReadHeader(conn)
				if err != nil || c.MaxMessage > 0 && h.Length > c.MaxMessage {
					return
				}
				f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
				if _, err := io.ReadFull(conn, f.Payload); err != nil {
					return
				}
				f = ws.UnmaskFrameInPlace(f)
				compressed, err := wsflate.IsCompressed(f.Header)
				if err != nil {
					return
				}
				if compressed {
					if f, err = wsflate.DecompressFrame(f); err != nil {
						return
					}
				}
				if f, err = wsflate.CompressFrame(ws.NewFrame(f.Header.OpCode, true, f.Payload)); err != nil {
					return
				}
				if err := ws.WriteFrame(conn, f); err != nil {
					return
				}
			}
		}()
	})
}

// gobwasTunedEcho is what someone who knows the protocol writes on the
// library's low level.
func gobwasTunedEcho(c *child) error {
	return gobwasServe(c, ws.HTTPUpgrader{}, func(conn net.Conn) {
		br, bw := bufio.NewReaderSize(conn, 16<<10), bufio.NewWriterSize(conn, 16<<10)
		var buf []byte
		var op ws.OpCode
		for {
			h, err := ws.ReadHeader(br)
			if err != nil || h.OpCode.IsControl() || c.MaxMessage > 0 && int64(len(buf))+h.Length > c.MaxMessage {
				return
			}
			if h.OpCode != ws.OpContinuation {
				op = h.OpCode
			}
			at := len(buf)
			buf = append(buf, make([]byte, h.Length)...)
			if _, err := io.ReadFull(br, buf[at:]); err != nil {
				return
			}
			ws.Cipher(buf[at:], h.Mask, 0)
			if !h.Fin {
				continue
			}
			if err := ws.WriteHeader(bw, ws.Header{Fin: true, OpCode: op, Length: int64(len(buf))}); err != nil {
				return
			}
			if _, err := bw.Write(buf); err != nil {
				return
			}
			buf = buf[:0]
			if br.Buffered() == 0 {
				if err := bw.Flush(); err != nil {
					return
				}
			}
		}
	})
}

func gobwasStream(c *child) error {
	return gobwasServe(c, ws.HTTPUpgrader{}, func(conn net.Conn) {
		r := wsutil.NewReader(conn, ws.StateServerSide)
		w := wsutil.NewWriter(conn, ws.StateServerSide, ws.OpText)
		for {
			h, err := r.NextFrame()
			if err != nil {
				return
			}
			if h.OpCode.IsControl() {
				if wsutil.ControlFrameHandler(conn, ws.StateServerSide)(h, r) != nil {
					return
				}
				continue
			}
			w.Reset(conn, ws.StateServerSide, h.OpCode)
			if _, err := io.Copy(w, r); err != nil {
				return
			}
			if err := w.Flush(); err != nil {
				return
			}
		}
	})
}

// gobwasPush: writes are the application's to keep apart, so it holds a mutex
// for each message.
func gobwasPush(c *child) error {
	p := newPusher(c)
	msg := noise(c.Size)
	return gobwasServe(c, ws.HTTPUpgrader{}, func(conn net.Conn) {
		var mu sync.Mutex
		write := func(op ws.OpCode, p []byte) {
			mu.Lock()
			defer mu.Unlock()
			wsutil.WriteServerMessage(conn, op, p)
		}
		r := wsutil.NewReader(conn, ws.StateServerSide)
		for i := 0; ; {
			h, err := r.NextFrame()
			if err != nil {
				return
			}
			if h.OpCode.IsControl() {
				payload, err := io.ReadAll(r)
				switch {
				case err != nil || h.OpCode == ws.OpClose:
					return
				case h.OpCode == ws.OpPong:
					p.pong(string(payload))
				case h.OpCode == ws.OpPing:
					go write(ws.OpPong, payload)
				}
				continue
			}
			if err := r.Discard(); err != nil {
				return
			}
			if i++; i > 1 {
				p.finish()
				continue
			}
			p.start(func() { write(ws.OpBinary, msg) }, func(payload string) { write(ws.OpPing, []byte(payload)) })
		}
	})
}

func gobwasBroadcast(c *child) error {
	var h hub[net.Conn]
	return gobwasServe(c, ws.HTTPUpgrader{}, func(conn net.Conn) {
		h.add(conn)
		defer h.remove(conn)
		for {
			msg, op, err := wsutil.ReadClientData(conn)
			if err != nil {
				return
			}
			frame, err := ws.CompileFrame(ws.NewFrame(op, true, msg))
			if err != nil {
				return
			}
			h.each(func(to net.Conn) { to.Write(frame) })
		}
	})
}

func gobwasClient(c *child) error {
	if c.MaxMessage > 0 {
		wsutil.SetMaxMessageSize(c.MaxMessage)
	}
	conn, br, _, err := ws.Dial(context.Background(), c.Target)
	if err != nil {
		return err
	}
	var rw io.ReadWriter = conn
	if br != nil { // frames that came with the handshake
		rw = struct {
			io.Reader
			io.Writer
		}{io.MultiReader(br, conn), conn}
	}
	go func() {
		defer conn.Close()
		for {
			msg, op, err := wsutil.ReadServerData(rw)
			if err != nil {
				return
			}
			if err := wsutil.WriteClientMessage(rw, op, msg); err != nil {
				return
			}
		}
	}()
	return nil
}
