// Command echo is a WebSocket server that sends every message back.
package main

import (
	"context"
	"log"

	"github.com/weft-ws/weft/ws"
)

func main() {
	s := ws.NewHTTPServer(&ws.Server{Handler: ws.Handler{
		Message: func(ctx context.Context, c *ws.Conn, typ ws.MessageType, p []byte) error {
			return c.WriteMessage(ctx, typ, p)
		},
	}})
	s.Addr = "127.0.0.1:9001"
	log.Fatal(s.ListenAndServe())
}
