// Package stat turns the paired rounds of a benchmark into medians and
// intervals.
//
// Two things are measured in turns, round by round, so what disturbs the
// machine disturbs both. The quotient of one round is therefore steadier than
// the quotient of two averages, and its logarithm is close to normally
// distributed: intervals are Student's t on the logarithms of the quotients.
package stat

import (
	"math"
	"slices"
)

// Median returns the middle of xs, or the mean of the two middle values; NaN
// when xs is empty. xs is left as it was.
func Median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	m := len(s) / 2
	if len(s)%2 == 1 {
		return s[m]
	}
	return (s[m-1] + s[m]) / 2
}

// Quantile returns the smallest x in sorted for which at least the fraction q
// of the values are at most x (nearest rank); NaN when sorted is empty.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// An Interval is an estimate with the 95 % confidence interval around it. With
// fewer than two rounds Low and High are infinite: nothing can be said.
type Interval struct {
	Mid, Low, High float64
}

// Width is the half width of the interval as a fraction of the estimate: 0.1
// says "within ten per cent".
func (iv Interval) Width() float64 {
	if iv.Mid == 0 {
		return 0
	}
	return max(iv.High/iv.Mid-1, 1-iv.Low/iv.Mid)
}

// Ratio estimates a/b from paired rounds: a[i] and b[i] were measured in the
// same round. Rounds in which either is not a positive finite number say
// nothing about a ratio and are left out.
func Ratio(a, b []float64) Interval {
	logs := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		if l := math.Log(a[i] / b[i]); usable(a[i]) && usable(b[i]) {
			logs = append(logs, l)
		}
	}
	return fromLogs(logs)
}

// Value estimates a itself, as a ratio to one. When every round gave zero (a
// count, a yes or no) the interval is exactly zero.
func Value(a []float64) Interval {
	if len(a) > 0 && !slices.ContainsFunc(a, func(x float64) bool { return x != 0 }) {
		return Interval{}
	}
	ones := make([]float64, len(a))
	for i := range ones {
		ones[i] = 1
	}
	return Ratio(a, ones)
}

func usable(x float64) bool { return x > 0 && !math.IsInf(x, 0) && !math.IsNaN(x) }

func fromLogs(logs []float64) Interval {
	n := len(logs)
	if n == 0 {
		return Interval{math.NaN(), math.Inf(-1), math.Inf(1)}
	}
	var mean float64
	for _, l := range logs {
		mean += l
	}
	mean /= float64(n)
	if n == 1 {
		return Interval{math.Exp(mean), 0, math.Inf(1)}
	}
	var ss float64
	for _, l := range logs {
		ss += (l - mean) * (l - mean)
	}
	half := T95(n-1) * math.Sqrt(ss/float64(n-1)/float64(n))
	return Interval{math.Exp(mean), math.Exp(mean - half), math.Exp(mean + half)}
}

// t95 holds the two-sided 95 % points of Student's t for 1 to 30 degrees of
// freedom.
var t95 = [...]float64{
	12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
	2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
	2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
}

// T95 returns the two-sided 95 % point of Student's t with df degrees of
// freedom. Above 30 it uses the first terms of the expansion around the normal
// distribution, which is right to three decimals there.
func T95(df int) float64 {
	switch {
	case df < 1:
		return math.Inf(1)
	case df <= len(t95):
		return t95[df-1]
	}
	const z = 1.959964
	n := float64(df)
	return z + (z*z*z+z)/(4*n) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*n*n)
}
