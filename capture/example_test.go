package capture_test

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/weft-ws/weft/capture"
)

func Example() {
	var file bytes.Buffer
	start := time.Date(2026, 2, 20, 19, 15, 24, 0, time.UTC)
	w := capture.NewWriter(&file, capture.Meta{Start: start, Fields: []capture.Field{{Key: "url", Value: "ws://127.0.0.1:9001/"}}})
	w.Chunk(capture.Server, start.Add(20*time.Millisecond), []byte{0x81, 0x02, 'h', 'i'})
	w.End(capture.Server, start.Add(time.Second), capture.FIN)
	os.Stdout.Write(file.Bytes())

	r, err := capture.NewReader(&file)
	if err != nil {
		fmt.Println(err)
		return
	}
	for c, err := range r.Chunks() {
		fmt.Printf("%s %q %s %v\n", c.From, c.Data, c.End, err)
	}
	// Output:
	// weft-trace 1
	// start: 2026-02-20T19:15:24Z
	// url: ws://127.0.0.1:9001/
	// 0.020000000 < 81026869
	// 1.000000000 < end fin
	// server "\x81\x02hi" open <nil>
	// server "" fin <nil>
}
