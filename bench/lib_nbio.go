//go:build linux

package main

import (
	"net"
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

var nbio = &contender{
	name:    "nbio",
	module:  "github.com/lesismal/nbio",
	noEmpty: true,
	about:   "its own HTTP engine and event loop (the default), OnMessage writing the message back, payload buffers released after the callback",
	modes: map[string]func(*child) error{
		modeEcho:      func(c *child) error { return nbioEcho(c, nbhttp.IOModNonBlocking) },
		modePush:      nbioPush,
		modeBroadcast: nbioBroadcast,
		modeClient:    nbioClient,
	},
}

var nbioBlocking = &contender{
	name:    "nbio-blocking",
	module:  "github.com/lesismal/nbio",
	about:   "the same with a goroutine for each connection",
	variant: true,
	noEmpty: true,
	modes: map[string]func(*child) error{
		modeEcho: func(c *child) error { return nbioEcho(c, nbhttp.IOModBlocking) },
	},
}

func nbioServe(c *child, mode int, set func(*websocket.Upgrader)) error {
	logging.SetLevel(logging.LevelNone)
	u := websocket.NewUpgrader()
	if c.MaxMessage > 0 {
		u.MessageLengthLimit = int(c.MaxMessage)
	}
	u.EnableCompression(c.Deflate != "")
	set(u)
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                 "tcp",
		Addrs:                   []string{c.ln.Addr().String()},
		Listen:                  func(string, string) (net.Listener, error) { return c.ln, nil },
		IOMod:                   mode,
		MaxLoad:                 1_000_000,
		ReleaseWebsocketPayload: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := u.Upgrade(w, r, nil)
			if err != nil {
				return // Upgrade has answered
			}
			conn.EnableWriteCompression(c.Deflate != "")
		}),
	})
	u.Engine = engine
	return engine.Start()
}

func nbioEcho(c *child, mode int) error {
	return nbioServe(c, mode, func(u *websocket.Upgrader) {
		u.OnMessage(func(conn *websocket.Conn, typ websocket.MessageType, p []byte) {
			conn.WriteMessage(typ, p)
		})
	})
}

func nbioPush(c *child) error {
	p := newPusher(c)
	msg := noise(c.Size)
	seen := 0
	return nbioServe(c, nbhttp.IOModNonBlocking, func(u *websocket.Upgrader) {
		u.OnOpen(func(*websocket.Conn) { seen = 0 })
		u.SetPongHandler(func(_ *websocket.Conn, payload string) { p.pong(payload) })
		u.OnMessage(func(conn *websocket.Conn, _ websocket.MessageType, _ []byte) {
			if seen++; seen > 1 {
				p.finish()
				return
			}
			p.start(func() { conn.WriteMessage(websocket.BinaryMessage, msg) }, func(payload string) {
				conn.WriteMessage(websocket.PingMessage, []byte(payload))
			})
		})
	})
}

func nbioBroadcast(c *child) error {
	var h hub[*websocket.Conn]
	return nbioServe(c, nbhttp.IOModNonBlocking, func(u *websocket.Upgrader) {
		u.OnOpen(func(conn *websocket.Conn) { h.add(conn) })
		u.OnClose(func(conn *websocket.Conn, _ error) { h.remove(conn) })
		u.OnMessage(func(_ *websocket.Conn, typ websocket.MessageType, p []byte) {
			h.each(func(to *websocket.Conn) { to.WriteMessage(typ, p) })
		})
	})
}

func nbioClient(c *child) error {
	logging.SetLevel(logging.LevelNone)
	engine := nbhttp.NewEngine(nbhttp.Config{ReleaseWebsocketPayload: true})
	if err := engine.Start(); err != nil {
		return err
	}
	u := websocket.NewUpgrader()
	if c.MaxMessage > 0 {
		u.MessageLengthLimit = int(c.MaxMessage)
	}
	u.OnMessage(func(conn *websocket.Conn, typ websocket.MessageType, p []byte) {
		conn.WriteMessage(typ, p)
	})
	_, _, err := (&websocket.Dialer{Engine: engine, Upgrader: u}).Dial(c.Target, nil)
	return err
}
