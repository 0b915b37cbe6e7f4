//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// stdioArg makes this program the stdio MCP server that all gateways have
// behind them. It is an argument, for gateways empty the environment.
const stdioArg = "stdio-server"

// serveStdio is an MCP server with one tool, echo, which answers with its text.
// It does as little as can be done: one read for as many lines as there are,
// one write for their answers, and no JSON library for a call that looks as
// expected. So the gateway before it is what a cell measures.
func serveStdio(in io.Reader, out io.Writer) error {
	buf := make([]byte, 256<<10)
	var answers []byte
	from, to := 0, 0
	for {
		if from == to {
			from, to = 0, 0
		}
		if to == len(buf) {
			if from > len(buf)/2 {
				to = copy(buf, buf[from:to])
				from = 0
			} else {
				buf = append(buf, make([]byte, len(buf))...)
			}
		}
		n, err := in.Read(buf[to:])
		seen := to
		to += n
		for {
			i := bytes.IndexByte(buf[seen:to], '\n')
			if i < 0 {
				break
			}
			line := buf[from : seen+i]
			from = seen + i + 1
			seen = from
			var bad error
			if answers, bad = appendAnswer(answers, line); bad != nil {
				return bad
			}
		}
		if len(answers) > 0 {
			if _, err := out.Write(answers); err != nil {
				return err
			}
			answers = answers[:0]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const callEnd = `"}}}`

// appendAnswer answers one line, if it wants an answer.
func appendAnswer(dst, line []byte) ([]byte, error) {
	// {"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","arguments":{"text":"TEXT"}}}
	head := line[:min(len(line), 256)]
	at := bytes.Index(head, []byte(callMethod))
	if id := bytes.Index(head, []byte(`"id":`)); id > 0 && id < at && bytes.HasSuffix(line, []byte(callEnd)) {
		return appendEcho(dst, line[id+len(`"id":`):at], line[at+len(callMethod):len(line)-len(callEnd)]), nil
	}
	var m struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
		Params struct {
			Name            string `json:"name"`
			ProtocolVersion string `json:"protocolVersion"`
			Arguments       struct {
				Text json.RawMessage `json:"text"`
			} `json:"arguments"`
		} `json:"params"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return dst, fmt.Errorf("stdio server: %w", err)
	}
	switch {
	case m.ID == nil:
		return dst, nil
	case m.Method == "initialize":
		return fmt.Appendf(dst, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":%q,"capabilities":{"tools":{}},"serverInfo":{"name":"echo","version":"1"}}}`+"\n",
			m.ID, m.Params.ProtocolVersion), nil
	case m.Method == "tools/call" && len(m.Params.Arguments.Text) >= 2:
		text := m.Params.Arguments.Text
		return appendEcho(dst, m.ID, text[1:len(text)-1]), nil
	}
	return fmt.Appendf(dst, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}`+"\n", m.ID), nil
}

// callMethod is what stands between the id and the text of a call.
const callMethod = `,"method":"tools/call","params":{"name":"echo","arguments":{"text":"`

func appendEcho(dst, id, text []byte) []byte {
	dst = append(append(dst, `{"jsonrpc":"2.0","id":`...), id...)
	dst = append(append(dst, `,"result":{"content":[{"type":"text","text":"`...), text...)
	return append(dst, "\"}]}}\n"...)
}

// echoCall is a call of the tool.
func echoCall(id int, text []byte) []byte {
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d%s%s%s`, id, callMethod, text, callEnd)
}

// stdioCommand is how a gateway starts the server.
func stdioCommand() ([]string, error) {
	self, err := os.Executable()
	return []string{self, stdioArg}, err
}
