package ws_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/weft-ws/weft/ws"
)

// A refusal says more than that there was one.
func ExampleDial() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = ws.Accept(w, r, &ws.AcceptOptions{RequireOrigin: true})
	}))
	defer srv.Close()

	_, err := ws.Dial(context.Background(), strings.Replace(srv.URL, "http", "ws", 1), nil)
	var he *ws.HandshakeError
	if errors.As(err, &he) {
		fmt.Printf("%d: %s", he.Status, he.Body)
	}
	// Output: 403: opening handshake refused: there is no Origin header and AcceptOptions.RequireOrigin is set
}
