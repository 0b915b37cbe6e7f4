package deflate

import (
	"encoding/hex"
	"fmt"
	"math/rand"
	"strings"
)

// corpus returns n different JSON messages of size bytes each, of the kind that
// chat histories and tool results are made of: the same keys again and again,
// with names, words, numbers, times and identifiers that differ. The same seed
// gives the same messages.
func corpus(seed int64, n, size int) [][]byte {
	g := generator{rand.New(rand.NewSource(seed))}
	out := make([][]byte, n)
	for i := range out {
		var b strings.Builder
		switch i % 3 {
		case 0:
			g.chat(&b, size)
		case 1:
			g.toolResult(&b, size)
		default:
			g.records(&b, size)
		}
		out[i] = []byte(b.String()[:size])
	}
	return out
}

type generator struct{ *rand.Rand }

// A made-up vocabulary of pronounceable words, common ones more often.
func (g generator) word() string {
	n := int(float64(len(vocabulary)) * g.Float64() * g.Float64() * g.Float64())
	return vocabulary[n]
}

var vocabulary = func() []string {
	rnd := rand.New(rand.NewSource(7))
	syllables := strings.Fields("ta re mi con ver de pro an ing er so lu ti on al ma ne is to ra en di st per qua fo ly ment")
	words := make([]string, 900)
	for i := range words {
		for range 1 + rnd.Intn(3) {
			words[i] += syllables[rnd.Intn(len(syllables))]
		}
	}
	return words
}()

func (g generator) sentence(words int) string {
	s := make([]string, words)
	for i := range s {
		s[i] = g.word()
	}
	return strings.Join(s, " ") + "."
}

func (g generator) id(bytes int) string {
	b := make([]byte, bytes)
	g.Read(b)
	return hex.EncodeToString(b)
}

func (g generator) time() string {
	return fmt.Sprintf("2026-11-%02dT%02d:%02d:%02d.%03dZ", 1+g.Intn(28), g.Intn(24), g.Intn(60), g.Intn(60), g.Intn(1000))
}

func (g generator) chat(b *strings.Builder, size int) {
	fmt.Fprintf(b, `{"type":"history","room":"%s","messages":[`, g.word())
	for b.Len() < size {
		fmt.Fprintf(b, `{"id":"%s","seq":%d,"from":{"name":"%s","color":"#%s"},"sent_at":"%s","text":"%s","edited":%t,"reactions":[]},`,
			g.id(4), g.Intn(1e6), g.word(), g.id(3), g.time(), g.sentence(4+g.Intn(12)), g.Intn(9) == 0)
	}
}

func (g generator) toolResult(b *strings.Builder, size int) {
	fmt.Fprintf(b, `{"jsonrpc":"2.0","id":%d,"result":{"content":[`, g.Intn(1e5))
	for b.Len() < size {
		fmt.Fprintf(b, `{"type":"text","text":"%s/%s.go:%d: %s"},`, g.word(), g.word(), g.Intn(900), g.sentence(3+g.Intn(8)))
	}
}

func (g generator) records(b *strings.Builder, size int) {
	fmt.Fprintf(b, `{"event":"update","rows":[`)
	for b.Len() < size {
		fmt.Fprintf(b, `{"user_id":%d,"name":"%s %s","active":%t,"score":%.2f,"tags":["%s","%s"],"updated":%d},`,
			g.Intn(1e6), g.word(), g.word(), g.Intn(2) == 0, g.Float64()*100, g.word(), g.word(), 1790000000+g.Intn(1e6))
	}
}
