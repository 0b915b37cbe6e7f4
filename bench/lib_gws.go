//go:build linux

package main

import (
	"net/http"

	"github.com/lxzan/gws"
)

var gwsLib = &contender{
	name:   "gws",
	module: "github.com/lxzan/gws",
	about:  "an event handler that writes each message back before it closes it; ReadLoop on a goroutine of its own, messages in order; text checked only in the cell that asks for it, since it is off by default",
	modes: map[string]func(*child) error{
		modeEcho:      gwsEcho,
		modePush:      gwsPush,
		modeBroadcast: gwsBroadcast,
		modeClient:    gwsClient,
	},
}

type gwsEchoHandler struct{ gws.BuiltinEventHandler }

func (gwsEchoHandler) OnPing(conn *gws.Conn, payload []byte) { conn.WritePong(payload) }

func (gwsEchoHandler) OnMessage(conn *gws.Conn, m *gws.Message) {
	defer m.Close()
	conn.WriteMessage(m.Opcode, m.Bytes())
}

func gwsServe(c *child, h gws.Event) error {
	opts := &gws.ServerOption{CheckUtf8Enabled: c.CheckUTF8, Logger: quiet{}}
	opts.WriteMaxPayloadSize = max(c.Size, 16<<20)
	if c.MaxMessage > 0 {
		opts.ReadMaxPayloadSize = int(c.MaxMessage)
	}
	if c.Deflate != "" {
		opts.PermessageDeflate.Enabled = true
		opts.PermessageDeflate.ServerContextTakeover = c.Deflate == takeover
		opts.PermessageDeflate.ClientContextTakeover = c.Deflate == takeover
	}
	u := gws.NewUpgrader(h, opts)
	return serveHTTP(c, func(w http.ResponseWriter, r *http.Request) {
		conn, err := u.Upgrade(w, r)
		if err != nil {
			return // Upgrade has answered
		}
		go conn.ReadLoop()
	})
}

// quiet drops what a library would log.
type quiet struct{}

func (quiet) Error(...any) {}

func gwsEcho(c *child) error { return gwsServe(c, gwsEchoHandler{}) }

type gwsPushHandler struct {
	gwsEchoHandler
	p    *pusher
	msg  []byte
	seen int
}

func (h *gwsPushHandler) OnOpen(*gws.Conn)                { h.seen = 0 }
func (h *gwsPushHandler) OnPong(_ *gws.Conn, pong []byte) { h.p.pong(string(pong)) }

func (h *gwsPushHandler) OnMessage(conn *gws.Conn, m *gws.Message) {
	m.Close()
	if h.seen++; h.seen > 1 {
		h.p.finish()
		return
	}
	h.p.start(func() { conn.WriteMessage(gws.OpcodeBinary, h.msg) }, func(payload string) {
		conn.WritePing([]byte(payload))
	})
}

func gwsPush(c *child) error {
	return gwsServe(c, &gwsPushHandler{p: newPusher(c), msg: noise(c.Size)})
}

type gwsBroadcastHandler struct {
	gwsEchoHandler
	h hub[*gws.Conn]
}

func (h *gwsBroadcastHandler) OnOpen(conn *gws.Conn)           { h.h.add(conn) }
func (h *gwsBroadcastHandler) OnClose(conn *gws.Conn, _ error) { h.h.remove(conn) }

func (h *gwsBroadcastHandler) OnMessage(_ *gws.Conn, m *gws.Message) {
	// The broadcaster may still write after this returns, so it gets bytes of
	// its own.
	b := gws.NewBroadcaster(m.Opcode, append([]byte(nil), m.Bytes()...))
	m.Close()
	defer b.Close()
	h.h.each(func(to *gws.Conn) { b.Broadcast(to) })
}

func gwsBroadcast(c *child) error { return gwsServe(c, &gwsBroadcastHandler{}) }

func gwsClient(c *child) error {
	opts := &gws.ClientOption{Addr: c.Target, Logger: quiet{}}
	if c.MaxMessage > 0 {
		opts.ReadMaxPayloadSize = int(c.MaxMessage)
	}
	conn, _, err := gws.NewClient(gwsEchoHandler{}, opts)
	if err != nil {
		return err
	}
	go conn.ReadLoop()
	return nil
}
