//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// What the load client sends. All of it is the same in every run.

// ascii is n bytes of text that looks like a small JSON message.
func ascii(n int) []byte {
	const s = `{"id":4711,"method":"tools/call","params":{"name":"weather","arguments":{"place":"Lisbon","units":"metric"}}} `
	return []byte(strings.Repeat(s, n/len(s)+1)[:n])
}

// noise is n bytes that do not compress and are not text: a video frame.
func noise(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	rand.NewChaCha8(seed).Read(b)
	return b
}

// mixed is n bytes of valid UTF-8 in which about half of the characters are
// ASCII and the rest takes two, three and four bytes.
func mixed(n int) []byte {
	const s = "The loom holds ten thousand threads. Der Webstuhl hält größere Fäden für Müller & Söhne. " +
		"Ткацкий станок держит нити. 織機は一万本の糸を保つ。Ο αργαλειός κρατά κλωστές. 🧵🪡 naïve café, señor! 베틀은 실을 잡는다. "
	var b []byte
	for len(b)+len(s) <= n {
		b = append(b, s...)
	}
	return append(b, bytes.Repeat([]byte{'.'}, n-len(b))...)
}

// documents is k JSON documents of exactly size bytes, alike but not equal:
// records such as a chat or a tool's answer is made of.
func documents(k, size int) [][]byte {
	rng := rand.New(rand.NewPCG(7, 11))
	words := strings.Fields("weave thread shuttle warp weft pattern colour cotton linen silk reed heddle treadle beam cloth edge knot fringe tension draft sett pick shed")
	out := make([][]byte, k)
	for i := range out {
		var b strings.Builder
		fmt.Fprintf(&b, `{"jsonrpc":"2.0","id":%d,"result":{"content":[`, 1000+i)
		for b.Len() < size {
			fmt.Fprintf(&b, `{"type":"text","at":"2026-03-%02dT%02d:%02d:%02dZ","user":"%s-%d","score":%.3f,"seen":%t,"text":"%s"},`,
				1+rng.IntN(28), rng.IntN(24), rng.IntN(60), rng.IntN(60), words[rng.IntN(len(words))], rng.IntN(10_000),
				rng.Float64(), rng.IntN(2) == 0, phrase(rng, words))
		}
		out[i] = []byte(b.String()[:size])
	}
	return out
}

func phrase(rng *rand.Rand, words []string) string {
	var b strings.Builder
	for i := range 4 + rng.IntN(8) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(words[rng.IntN(len(words))])
	}
	return b.String()
}
