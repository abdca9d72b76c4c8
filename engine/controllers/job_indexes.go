package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// indexSet is a set of completion indexes as ascending spans with a gap between
// them: a Job may have 100,000 of them, and its status tells them as
// "1,3-5,7" (k8s.io/api/batch/v1, JobStatus.CompletedIndexes).
type indexSet []span

type span struct{ first, last int }

// parseIndexes reads what String has written. What is no index below
// completions is left out: a Job whose completions were lowered forgets it.
func parseIndexes(text string, completions int) indexSet {
	var out indexSet
	for _, part := range strings.Split(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		b := a
		if err == nil && ranged {
			b, err = strconv.Atoi(last)
		}
		if err == nil && a < completions {
			out = append(out, span{a, min(b, completions-1)})
		}
	}
	return out.union(nil)
}

// with is the set and some more indexes.
func (s indexSet) with(more ...int) indexSet {
	spans := make(indexSet, len(more))
	for i, n := range more {
		spans[i] = span{n, n}
	}
	return s.union(spans)
}

func (s indexSet) union(o indexSet) indexSet {
	all := slices.Concat(s, o)
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var out indexSet
	for _, sp := range all {
		if n := len(out); n > 0 && sp.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, sp.last)
		} else {
			out = append(out, sp)
		}
	}
	return out
}

func (s indexSet) total() int {
	n := 0
	for _, sp := range s {
		n += sp.last - sp.first + 1
	}
	return n
}

// common counts the indexes that are in both sets.
func (s indexSet) common(o indexSet) int { return s.total() + o.total() - s.union(o).total() }

func (s indexSet) has(n int) bool {
	return slices.ContainsFunc(s, func(sp span) bool { return sp.first <= n && n <= sp.last })
}

// free returns up to n indexes below completions that are not in the set, the
// lowest first.
func (s indexSet) free(n, completions int) []int {
	var out []int
	next := 0
	for _, sp := range append(slices.Clone(s), span{completions, completions}) {
		for ; next < min(sp.first, completions) && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, sp.last+1)
	}
	return out
}

// String writes two neighbours as "1,2" and more as "1-3", as Kubernetes does.
func (s indexSet) String() string {
	var parts []string
	for _, sp := range s {
		switch sp.last - sp.first {
		case 0:
			parts = append(parts, strconv.Itoa(sp.first))
		case 1:
			parts = append(parts, fmt.Sprintf("%d,%d", sp.first, sp.last))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", sp.first, sp.last))
		}
	}
	return strings.Join(parts, ",")
}
