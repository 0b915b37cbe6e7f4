package proto

import "unicode/utf8"

type Text struct {
	b [4]byte
	n uint8
}

func (t *Text) Reset()         { *t = Text{} }
func (t *Text) Complete() bool { return t.n == 0 }
func (t *Text) Next(p []byte) int {
	for i, c := range p {
		t.b[t.n] = c
		t.n++
		if utf8.FullRune(t.b[:t.n]) {
			if r, s := utf8.DecodeRune(t.b[:t.n]); r == utf8.RuneError && s == 1 {
				return i
			}
			t.n = 0
		}
	}
	return -1
}
func CutText(p []byte, n int) int {
	m := n
	for m > 0 && m < len(p) && !utf8.RuneStart(p[m]) {
		m--
	}
	if m == len(p) {
		for k := 1; k < 4 && k <= m; k++ {
			if utf8.RuneStart(p[m-k]) {
				if !utf8.FullRune(p[m-k : m]) {
					return m - k
				}
				break
			}
		}
	}
	return m
}
