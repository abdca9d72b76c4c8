package scheduler

import (
	"cmp"
	"container/heap"
)

// line is a heap of Pods: the highest priority first, then the oldest, then by name.
type line struct{ items []*item }

func (l *line) push(it *item) {
	it.in = l
	heap.Push(l, it)
}

// leave takes a Pod out of the line that it stands in.
func (it *item) leave() {
	if it.in != nil {
		heap.Remove(it.in, it.index)
		it.in = nil
	}
}

// Len implements heap.Interface.
func (l *line) Len() int { return len(l.items) }

// Less implements heap.Interface.
func (l *line) Less(i, j int) bool {
	a, b := l.items[i], l.items[j]
	return cmp.Or(
		cmp.Compare(b.class.priority, a.class.priority),
		a.pod.CreationTimestamp.Time.Compare(b.pod.CreationTimestamp.Time),
		cmp.Compare(a.pod.Namespace, b.pod.Namespace),
		cmp.Compare(a.pod.Name, b.pod.Name),
		cmp.Compare(a.id, b.id),
	) < 0
}

// Swap implements heap.Interface.
func (l *line) Swap(i, j int) {
	l.items[i], l.items[j] = l.items[j], l.items[i]
	l.items[i].index, l.items[j].index = i, j
}

// Push implements heap.Interface.
func (l *line) Push(x any) {
	it := x.(*item)
	it.index = len(l.items)
	l.items = append(l.items, it)
}

// Pop implements heap.Interface.
func (l *line) Pop() any {
	last := len(l.items) - 1
	it := l.items[last]
	l.items[last] = nil
	l.items = l.items[:last]
	return it
}
