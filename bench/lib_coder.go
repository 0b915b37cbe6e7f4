//go:build linux

package main

import (
	"context"
	"io"
	"net/http"

	"github.com/coder/websocket"
)

var coder = &contender{
	name:   "coder",
	module: "github.com/coder/websocket",
	about:  "Read and Write with a context that is never cancelled, the cheapest its documentation allows",
	modes: map[string]func(*child) error{
		modeEcho:      coderEcho,
		modeStream:    coderStream,
		modePush:      coderPush,
		modeBroadcast: coderBroadcast,
		modeClient:    coderClient,
	},
}

func coderServe(c *child, f func(context.Context, *websocket.Conn)) error {
	opts := &websocket.AcceptOptions{}
	switch c.Deflate {
	case noTakeover:
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	case takeover:
		opts.CompressionMode = websocket.CompressionContextTakeover
	}
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, opts)
		if err != nil {
			return // Accept has answered
		}
		defer conn.CloseNow()
		if c.MaxMessage > 0 {
			conn.SetReadLimit(c.MaxMessage)
		}
		f(context.Background(), conn)
	})
}

func coderEcho(c *child) error { return coderServe(c, coderLoop) }

func coderLoop(ctx context.Context, conn *websocket.Conn) {
	for {
		typ, p, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, typ, p); err != nil {
			return
		}
	}
}

func coderStream(c *child) error {
	return coderServe(c, func(ctx context.Context, conn *websocket.Conn) {
		for {
			typ, r, err := conn.Reader(ctx)
			if err != nil {
				return
			}
			w, err := conn.Writer(ctx, typ)
			if err != nil {
				return
			}
			if _, err := io.Copy(w, r); err != nil {
				return
			}
			if err := w.Close(); err != nil {
				return
			}
		}
	})
}

func coderPush(c *child) error {
	p := newPusher(c)
	msg := noise(c.Size)
	return coderServe(c, func(ctx context.Context, conn *websocket.Conn) {
		for i := 0; ; i++ {
			if _, _, err := conn.Read(ctx); err != nil {
				return
			}
			if i > 0 {
				p.finish()
				continue
			}
			p.start(func() { conn.Write(ctx, websocket.MessageBinary, msg) }, func(payload string) {
				if conn.Ping(ctx) == nil {
					p.pong(payload)
				}
			})
		}
	})
}

func coderBroadcast(c *child) error {
	var h hub[*websocket.Conn]
	return coderServe(c, func(ctx context.Context, conn *websocket.Conn) {
		h.add(conn)
		defer h.remove(conn)
		for {
			typ, p, err := conn.Read(ctx)
			if err != nil {
				return
			}
			h.each(func(to *websocket.Conn) { to.Write(ctx, typ, p) })
		}
	})
}

func coderClient(c *child) error {
	conn, _, err := websocket.Dial(context.Background(), c.Target, nil)
	if err != nil {
		return err
	}
	conn.SetReadLimit(max(c.MaxMessage, 32<<10))
	go coderLoop(context.Background(), conn)
	return nil
}
