package stat

import (
	"math"
	"math/rand/v2"
	"testing"
)

func near(t *testing.T, what string, got, want, eps float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > eps {
		t.Errorf("%s = %v, want %v within %v", what, got, want, eps)
	}
}

func TestMedian(t *testing.T) {
	in := []float64{5, 1, 3}
	near(t, "odd", Median(in), 3, 0)
	near(t, "even", Median([]float64{4, 1, 3, 2}), 2.5, 0)
	if in[0] != 5 {
		t.Error("the caller's slice was sorted")
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestQuantileIsNearestRank(t *testing.T) {
	s := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	near(t, "p50", Quantile(s, 0.5), 5, 0)
	near(t, "p99", Quantile(s, 0.99), 10, 0)
	near(t, "p0", Quantile(s, 0), 1, 0)
	near(t, "p100", Quantile(s, 1), 10, 0)
}

// The logarithms of 2, 4 and 8 over 1 are ln 2 times 1, 2 and 3: mean 2 ln 2,
// standard deviation ln 2, and t with two degrees of freedom is 4.303.
func TestRatioByHand(t *testing.T) {
	iv := Ratio([]float64{2, 4, 8}, []float64{1, 1, 1})
	half := 4.303 * math.Ln2 / math.Sqrt(3)
	near(t, "estimate", iv.Mid, 4, 1e-9)
	near(t, "low", iv.Low, 4*math.Exp(-half), 1e-9)
	near(t, "high", iv.High, 4*math.Exp(half), 1e-9)
}

// What disturbs both sides of a round must not widen the interval: that is
// what pairing is for.
func TestRatioCancelsSharedNoise(t *testing.T) {
	a := []float64{100, 350, 90, 1200, 70}
	b := make([]float64, len(a))
	for i := range a {
		b[i] = a[i] / 2
	}
	iv := Ratio(a, b)
	near(t, "estimate", iv.Mid, 2, 1e-9)
	near(t, "width", iv.Width(), 0, 1e-9)
}

func TestRatioIsTheInverseOfItsInverse(t *testing.T) {
	a, b := []float64{10, 12, 11, 15}, []float64{20, 19, 25, 21}
	ab, ba := Ratio(a, b), Ratio(b, a)
	near(t, "estimate", ab.Mid, 1/ba.Mid, 1e-12)
	near(t, "low", ab.Low, 1/ba.High, 1e-12)
}

func TestRatioLeavesOutWhatIsNoRatio(t *testing.T) {
	iv := Ratio([]float64{2, 0, math.NaN(), 2, math.Inf(1)}, []float64{1, 1, 1, 1, 1})
	near(t, "estimate", iv.Mid, 2, 1e-12)
	if one := Ratio([]float64{2}, []float64{1}); !math.IsInf(one.High, 1) || one.Low != 0 {
		t.Errorf("one round gave an interval: %+v", one)
	}
	if none := Ratio(nil, nil); !math.IsNaN(none.Mid) {
		t.Errorf("no round gave an estimate: %+v", none)
	}
}

func TestValueOfZeros(t *testing.T) {
	if iv := Value([]float64{0, 0, 0}); iv != (Interval{}) {
		t.Errorf("three zeros gave %+v", iv)
	}
}

// The promise of "95 %" itself: over many runs of ten rounds with a true ratio
// of 1.1 the interval holds it in 95 of 100, give or take.
func TestIntervalCovers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const runs = 4000
	held := 0
	for range runs {
		a, b := make([]float64, 10), make([]float64, 10)
		for i := range a {
			shared := math.Exp(0.3 * rng.NormFloat64())
			a[i] = 1.1 * shared * math.Exp(0.05*rng.NormFloat64())
			b[i] = shared * math.Exp(0.05*rng.NormFloat64())
		}
		if iv := Ratio(a, b); iv.Low <= 1.1 && 1.1 <= iv.High {
			held++
		}
	}
	near(t, "coverage", float64(held)/runs, 0.95, 0.015)
}

func TestT95(t *testing.T) {
	near(t, "9 degrees", T95(9), 2.262, 0)
	near(t, "31 degrees", T95(31), 2.040, 0.001)
	near(t, "60 degrees", T95(60), 2.000, 0.001)
	near(t, "many degrees", T95(1_000_000), 1.960, 0.001)
}
