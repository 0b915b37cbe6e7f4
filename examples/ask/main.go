// Command ask is a WebSocket client whose goroutines write as they please.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/weft-ws/weft/ws"
)

func main() {
	ctx := context.Background()
	c, err := ws.Dial(ctx, "ws://127.0.0.1:9001/", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ws.CloseNormal, "")
	for i := range 3 {
		go c.WriteMessage(ctx, ws.Text, fmt.Appendf(nil, "hello from goroutine %d", i))
	}
	for range 3 {
		_, p, err := c.ReadMessage(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", p)
	}
}
