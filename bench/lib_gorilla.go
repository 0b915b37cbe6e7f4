//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

var gorilla = &contender{
	name:   "gorilla",
	module: "github.com/gorilla/websocket",
	about:  "ReadMessage and WriteMessage behind an Upgrader with default options, as in its echo example",
	modes: map[string]func(*child) error{
		modeEcho:      gorillaEcho,
		modeStream:    gorillaStream,
		modePush:      gorillaPush,
		modeBroadcast: gorillaBroadcast,
		modeClient:    gorillaClient,
	},
}

var gorillaTuned = &contender{
	name:    "gorilla-tuned",
	module:  "github.com/gorilla/websocket",
	about:   "NextReader into a buffer that the connection keeps, and buffers of 16 KiB",
	variant: true,
	modes:   map[string]func(*child) error{modeEcho: gorillaTunedEcho},
}

func gorillaUpgrader(c *child) *websocket.Upgrader {
	return &websocket.Upgrader{EnableCompression: c.Deflate != ""}
}

// gorillaServe upgrades and hands the connection to f, which runs until it is
// over.
func gorillaServe(c *child, u *websocket.Upgrader, f func(*websocket.Conn)) error {
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		conn, err := u.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		defer conn.Close()
		if c.MaxMessage > 0 {
			conn.SetReadLimit(c.MaxMessage)
		}
		f(conn)
	})
}

func gorillaEcho(c *child) error {
	return gorillaServe(c, gorillaUpgrader(c), gorillaLoop)
}

func gorillaLoop(conn *websocket.Conn) {
	for {
		typ, p, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if err := conn.WriteMessage(typ, p); err != nil {
			return
		}
	}
}

func gorillaTunedEcho(c *child) error {
	u := gorillaUpgrader(c)
	u.ReadBufferSize, u.WriteBufferSize = 16<<10, 16<<10
	return gorillaServe(c, u, func(conn *websocket.Conn) {
		var buf bytes.Buffer
		for {
			typ, r, err := conn.NextReader()
			if err != nil {
				return
			}
			buf.Reset()
			if _, err := buf.ReadFrom(r); err != nil {
				return
			}
			if err := conn.WriteMessage(typ, buf.Bytes()); err != nil {
				return
			}
		}
	})
}

func gorillaStream(c *child) error {
	return gorillaServe(c, gorillaUpgrader(c), func(conn *websocket.Conn) {
		for {
			typ, r, err := conn.NextReader()
			if err != nil {
				return
			}
			w, err := conn.NextWriter(typ)
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

func gorillaPush(c *child) error {
	p := newPusher(c)
	msg := noise(c.Size)
	return gorillaServe(c, gorillaUpgrader(c), func(conn *websocket.Conn) {
		conn.SetPongHandler(func(payload string) error { p.pong(payload); return nil })
		for i := 0; ; i++ {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
			if i > 0 {
				p.finish()
				continue
			}
			p.start(func() { conn.WriteMessage(websocket.BinaryMessage, msg) }, func(payload string) {
				conn.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(time.Minute))
			})
		}
	})
}

func gorillaBroadcast(c *child) error {
	var h hub[*websocket.Conn]
	return gorillaServe(c, gorillaUpgrader(c), func(conn *websocket.Conn) {
		h.add(conn)
		defer h.remove(conn)
		for {
			typ, p, err := conn.ReadMessage()
			if err != nil {
				return
			}
			pm, err := websocket.NewPreparedMessage(typ, p)
			if err != nil {
				return
			}
			h.each(func(to *websocket.Conn) { to.WritePreparedMessage(pm) })
		}
	})
}

func gorillaClient(c *child) error {
	conn, _, err := websocket.DefaultDialer.DialContext(context.Background(), c.Target, nil)
	if err != nil {
		return err
	}
	go gorillaLoop(conn)
	return nil
}
