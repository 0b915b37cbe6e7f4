package ws

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
)

// Readers in line are served first come, first served, wherever in the line
// others give up.
func TestConcurrencyReadersInLine(t *testing.T) {
	errOver := errors.New("over")
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			var l readLock
			if err := l.lock(background, nil); err != nil {
				t.Fatal(err)
			}
			var got, want []int
			n := 1 + rng.IntN(6)
			cancels := make([]context.CancelFunc, n)
			results := make([]<-chan result, n)
			for i := range n {
				var ctx context.Context
				ctx, cancels[i] = context.WithCancel(background)
				results[i] = async(func() error {
					err := l.lock(ctx, func() error { return errOver })
					if err == nil {
						got = append(got, i) // guarded by the lock
						l.unlock()
					}
					return err
				})
				synctest.Wait()
			}
			for _, i := range rng.Perm(n) {
				if rng.IntN(2) == 0 {
					cancels[i]()
					if r := now(t, results[i], "its context has ended"); r.err != context.Canceled {
						t.Fatal(r.err)
					}
					results[i] = nil
				}
			}
			for i, ch := range results {
				if ch != nil {
					want = append(want, i)
				}
			}
			last := seed%2 == 0
			if last { // the connection ends while they wait
				want = nil
				if l.finish() == nil {
					t.Fatal("somebody is inside")
				}
			}
			l.unlock()
			synctest.Wait()
			for i, ch := range results {
				if ch == nil {
					continue
				}
				if r := now(t, ch, "it is its turn"); last != (r.err == errOver) || !last && r.err != nil {
					t.Errorf("reader %d: %v", i, r.err)
				}
				cancels[i]()
			}
			if !slices.Equal(got, want) {
				t.Errorf("served %v, want %v", got, want)
			}
			if l.waiters != nil || l.active() {
				t.Error("somebody is left in line or inside")
			}
		})
	}
}
