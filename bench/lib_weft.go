//go:build linux

package main

import (
	"context"
	"io"
	"net/http"

	"github.com/weft-ws/weft/ws"
)

var weft = &contender{
	name:   ours,
	module: "github.com/weft-ws/weft",
	about:  "ws.Serve with a handler that writes each message back; the client loops over AppendMessage and WriteMessage; text always checked",
	modes: map[string]func(*child) error{
		modeEcho:      weftEcho,
		modeStream:    weftStream,
		modePush:      weftPush,
		modeBroadcast: weftBroadcast,
		modeClient:    weftClient,
	},
}

func weftConfig(c *child) ws.Config {
	cfg := ws.Config{MaxMessageSize: c.MaxMessage, MessageTimeout: c.MessageTimeout}
	if c.Deflate != "" {
		cfg.Compression = &ws.Compression{NoContextTakeover: c.Deflate == noTakeover}
	}
	return cfg
}

func weftServe(c *child, h ws.Handler) error {
	opts := &ws.AcceptOptions{Config: weftConfig(c)}
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		ws.Serve(w, r, opts, h) // answers the request itself when it refuses
	})
}

func weftEcho(c *child) error {
	return weftServe(c, ws.Handler{Message: func(ctx context.Context, conn *ws.Conn, typ ws.MessageType, p []byte) error {
		return conn.WriteMessage(ctx, typ, p)
	}})
}

func weftStream(c *child) error {
	opts := &ws.AcceptOptions{Config: weftConfig(c)}
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		conn, err := ws.Accept(w, r, opts)
		if err != nil {
			return // Accept has answered
		}
		defer conn.CloseNow()
		ctx := context.Background()
		for {
			in, err := conn.NextReader(ctx)
			if err != nil {
				return
			}
			out, err := conn.NextWriter(ctx, in.Type)
			if err != nil {
				return
			}
			if _, err := io.Copy(out, in); err != nil {
				return
			}
			if err := out.Close(); err != nil {
				return
			}
		}
	})
}

func weftPush(c *child) error {
	p := newPusher(c)
	msg := noise(c.Size)
	opts := &ws.AcceptOptions{Config: weftConfig(c)}
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		conn, err := ws.Accept(w, r, opts)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := context.Background()
		for i := 0; ; i++ {
			if _, _, err := conn.ReadMessage(ctx); err != nil {
				return
			}
			if i > 0 {
				p.finish()
				continue
			}
			p.start(func() { conn.WriteMessage(ctx, ws.Binary, msg) }, func(payload string) {
				if _, err := conn.Ping(ctx); err == nil {
					p.pong(payload)
				}
			})
		}
	})
}

func weftBroadcast(c *child) error {
	var h hub[*ws.Conn]
	return weftServe(c, ws.Handler{
		Open: func(_ context.Context, conn *ws.Conn) error { h.add(conn); return nil },
		Message: func(_ context.Context, _ *ws.Conn, typ ws.MessageType, p []byte) error {
			// The handler's memory is its own only until it returns, and so is
			// the prepared message.
			m, err := ws.NewPrepared(typ, p)
			if err != nil {
				return err
			}
			h.each(func(to *ws.Conn) { to.WritePrepared(context.Background(), m) })
			return nil
		},
		Closed: func(conn *ws.Conn, _ error) { h.remove(conn) },
	})
}

func weftClient(c *child) error {
	ctx := context.Background()
	conn, err := ws.Dial(ctx, c.Target, &ws.DialOptions{Config: weftConfig(c)})
	if err != nil {
		return err
	}
	go func() {
		defer conn.CloseNow()
		var buf []byte
		for {
			typ, p, err := conn.AppendMessage(ctx, buf[:0])
			if err != nil {
				return
			}
			if err := conn.WriteMessage(ctx, typ, p); err != nil {
				return
			}
			buf = p
		}
	}()
	return nil
}
