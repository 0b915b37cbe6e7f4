package doctor_test

import (
	"fmt"
	"os"
	"time"

	"github.com/weft-ws/weft/capture"
	"github.com/weft-ws/weft/doctor"
)

// A server says that its message is complete, and goes on with it.
func ExampleInspector() {
	in := doctor.New(doctor.Options{})
	in.Write(capture.Server, time.Time{}, []byte("\x81\x05Hello"))
	in.Write(capture.Server, time.Time{}, []byte("\x80\x06 world"))
	for _, f := range in.Findings() {
		f.WriteText(os.Stdout)
	}
	// Output:
	// server → client, frame 2, byte 7
	//
	//   continuation-without-message      RFC 6455 §5.4      close 1002
	//   a continuation frame must follow an open message; the last one ended in frame 1
	//
	//     #1  TEXT  FIN=1  5   message complete, 5 bytes
	//     #2  CONT  FIN=1  6   nothing to continue
	//
	//     000007  80 06  …
	//             ^^ FIN=1, opcode 0 (CONT)
	//
	// hint: the sender ended a message too early, or two writers share this connection without a lock
}

// Every frame and every finding, as the bytes come.
func ExampleInspector_Feed() {
	in := doctor.New(doctor.Options{})
	for ev := range in.Feed(capture.Server, time.Time{}, []byte("\x01\x02ab\x89\x00\x80\x02\xffc")) {
		switch {
		case ev.Frame != nil:
			fmt.Println("frame", ev.Frame.Index, ev.Frame.Opcode, "of", ev.Frame.Length, "bytes")
		case ev.Finding != nil:
			fmt.Println(ev.Finding)
		}
	}
	// Output:
	// frame 1 TEXT of 2 bytes
	// frame 2 PING of 0 bytes
	// frame 3 CONT of 2 bytes
	// server broke text-not-utf8 (MS-05, RFC 6455 8.1) in frame 3 from the server at byte 8: ff is never part of UTF-8, byte 0 of the frame's payload
}
