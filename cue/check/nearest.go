package check

import "strings"

// Nearest returns the one of names that word most likely stands for, or "".
func Nearest(word string, names []string) string {
	best, distance := "", len(word)/3+2
	if len(word) < 5 {
		distance = 2 // half of a short word is another word
	}
	for _, name := range names {
		if strings.EqualFold(word, name) {
			return name
		}
		if d := edits(strings.ToLower(word), strings.ToLower(name), distance); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// edits counts insertions, deletions, substitutions and swaps of neighbours.
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 64 {
		return limit
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
