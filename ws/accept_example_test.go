package ws_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/weft-ws/weft/ws"
)

// A handler that stays and reads. The client's request must come from a page of
// the same host, or of one below example.com.
func ExampleAccept() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, &ws.AcceptOptions{
			Subprotocols: []string{"chat.v2", "chat.v1"},
			Origins:      []string{"*.example.com"},
		})
		if err != nil {
			return // the client has been told why
		}
		defer c.CloseNow()
		for m, err := range c.Messages(r.Context()) {
			if err != nil {
				log.Print(err)
				return
			}
			if err := c.WriteMessage(r.Context(), m.Type, m.Data); err != nil {
				return
			}
		}
	}))
	defer srv.Close()

	ctx := context.Background()
	c, err := ws.Dial(ctx, strings.Replace(srv.URL, "http", "ws", 1), &ws.DialOptions{Subprotocols: []string{"chat.v1"}})
	if err != nil {
		log.Print(err)
		return
	}
	defer c.Close(ws.CloseNormal, "")
	if err := c.WriteMessage(ctx, ws.Text, []byte("hello")); err != nil {
		log.Print(err)
		return
	}
	_, p, err := c.ReadMessage(ctx)
	fmt.Println(c.Subprotocol(), string(p), err)
	// Output: chat.v1 hello <nil>
}

// A server that calls a function for each message, and stops without cutting
// anybody off.
func ExampleServer() {
	s := &ws.Server{
		Options:        ws.AcceptOptions{Hosts: ws.LoopbackHosts()},
		ConnectionsMax: 10_000,
		Handler: ws.Handler{
			Message: func(ctx context.Context, c *ws.Conn, typ ws.MessageType, p []byte) error {
				return c.WriteMessage(ctx, typ, p)
			},
		},
	}
	srv := httptest.NewServer(s)
	defer srv.Close()

	ctx := context.Background()
	c, err := ws.Dial(ctx, strings.Replace(srv.URL, "http", "ws", 1), nil)
	if err != nil {
		log.Print(err)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			log.Print(err)
		}
	}()
	_, _, err = c.ReadMessage(ctx)
	var ce *ws.CloseError
	fmt.Println(errors.As(err, &ce), uint16(ce.Code))
	// Output: true 1001
}
