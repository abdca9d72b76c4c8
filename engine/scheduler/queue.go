package scheduler

import "k8s.io/apimachinery/pkg/types"

// Queue holds the Pods that wait for a node: those that are to be decided, by
// priority and age, and those that were refused. A refusal holds for all Pods
// of a class until a change may end it; then one of them is tried, and the next
// only when that one fitted.
type Queue struct {
	cluster *Cluster
	items   map[types.UID]*item
	active  line
	crowds  map[*class]*crowd
	// wary are the crowds whose refusal Pods on other nodes can end.
	wary map[*crowd]bool
	// nominated wait for their victims to end.
	nominated map[*item]bool
	seen      uint64
}

// item is one Pod that waits.
type item struct {
	pod   Pod
	id    types.UID
	class *class
	// in is the line that it stands in, nil while it is decided or nominated.
	in    *line
	index int
	// since is the state of its terms when it was nominated.
	since uint64
}

// crowd are the Pods of one class that were refused.
type crowd struct {
	class   *class
	line    line
	refusal Decision
	// wary are the reasons that Pods on other nodes can end, and since is the
	// state of their terms at the refusal.
	wary  Reasons
	since uint64
	// awake: a change may have ended the refusal, and its Pods are tried one by
	// one; out is the one whose turn it is.
	awake bool
	out   *item
	// anew: all of it are told the next refusal, also one of the same kind.
	anew bool
	// hints are the nodes that may take one of its Pods now; anywhere is set when
	// it may be any node.
	hints    []*node
	anywhere bool
}

// maxHints is how many nodes are remembered for a crowd, before all are looked at.
const maxHints = 8

// NewQueue makes an empty queue before a cluster.
func NewQueue(c *Cluster) *Queue {
	return &Queue{cluster: c, items: map[types.UID]*item{}, crowds: map[*class]*crowd{}, wary: map[*crowd]bool{}, nominated: map[*item]bool{}}
}

// Len is how many Pods wait.
func (q *Queue) Len() int { return len(q.items) }

// Add puts a Pod in line, or takes it over as it is now. When its like was
// refused and nothing has changed, that is its answer at once.
func (q *Queue) Add(pod Pod) {
	id := identityOf(pod.Pod)
	k := q.cluster.classOf(pod)
	if it := q.items[id]; it != nil {
		if it.class == k {
			it.pod = pod
			return
		}
		k.refs++
		q.Remove(id)
		k.refs--
	}
	k.refs++
	it := &item{pod: pod, id: id, class: k}
	q.items[id] = it
	if cr := q.crowds[k]; cr != nil && cr.awake {
		cr.line.push(it)
		q.refill(cr)
		return
	}
	q.active.push(it)
}

// Remove forgets a Pod, which was placed or is gone.
func (q *Queue) Remove(id types.UID) {
	it := q.items[id]
	if it == nil {
		return
	}
	delete(q.items, id)
	delete(q.nominated, it)
	it.leave()
	it.class.refs--
	if cr := q.crowds[it.class]; cr != nil {
		if cr.out == it {
			cr.out = nil
		}
		q.refill(cr)
	}
}

// Next takes the first Pod out of the line. When refused is set, it is the
// answer: an equal Pod had it and nothing changed. Otherwise the Pod is to be
// decided, and Remove, Park or Nominate called for it.
func (q *Queue) Next() (pod Pod, refused *Decision, ok bool) {
	q.wake()
	for len(q.active.items) > 0 {
		it := q.active.items[0]
		it.leave()
		cr := q.crowds[it.class]
		switch {
		case cr == nil || q.cluster.reserved[it.id] != nil:
		case !cr.awake:
			cr.line.push(it)
			d := cr.refusal
			return it.pod, &d, true
		case cr.out == it && !q.cluster.stillHelps(cr):
			// Others were faster, and what it was told still holds.
			cr.line.push(it)
			cr.sleep()
			q.note(cr)
			continue
		}
		return it.pod, nil, true
	}
	return Pod{}, nil, false
}

// sleep: the crowd waits for the next change.
func (cr *crowd) sleep() {
	cr.awake, cr.out, cr.hints, cr.anywhere = false, nil, cr.hints[:0], false
}

// Park lets a Pod wait that was refused, with all of its class. It returns who
// is to be told: the Pod alone, or all when the refusal is of another kind than
// the last one, and after WakeAll when it has other words.
func (q *Queue) Park(id types.UID, d Decision) []Pod {
	it := q.items[id]
	if it == nil {
		return nil
	}
	delete(q.nominated, it)
	it.leave()
	cr := q.crowds[it.class]
	if cr == nil {
		cr = &crowd{class: it.class}
		q.crowds[it.class] = cr
	}
	told := []Pod{it.pod}
	if cr.refusal.Reasons != d.Reasons || cr.anew && cr.refusal.Message != d.Message {
		for _, other := range cr.line.items {
			told = append(told, other.pod)
		}
	}
	cr.line.push(it)
	cr.anew = false
	cr.refusal, cr.wary, cr.since = d, d.Reasons&apart, q.cluster.now
	cr.sleep()
	q.note(cr)
	return told
}

// Nominate lets a Pod wait for the room that is held for it.
func (q *Queue) Nominate(id types.UID) {
	it := q.items[id]
	if it == nil {
		return
	}
	it.leave()
	it.since = q.cluster.now
	q.nominated[it] = true
	if cr := q.crowds[it.class]; cr != nil {
		if cr.out == it {
			cr.out = nil
		}
		q.refill(cr)
	}
}

// Retry puts a Pod in line that was nominated.
func (q *Queue) Retry(id types.UID) {
	if it := q.items[id]; it != nil && q.nominated[it] {
		delete(q.nominated, it)
		q.active.push(it)
	}
}

// WakeAll lets everything be tried again, and brings up to date what those that
// wait have been told.
func (q *Queue) WakeAll() {
	for _, cr := range q.crowds {
		cr.awake, cr.anywhere, cr.anew = true, true, true
		q.refill(cr)
	}
	for it := range q.nominated {
		q.Retry(it.id)
	}
}

// refill lets the next of a crowd that is awake have its turn.
func (q *Queue) refill(cr *crowd) {
	if len(cr.line.items) == 0 && cr.out == nil {
		delete(q.crowds, cr.class)
		delete(q.wary, cr)
		return
	}
	if cr.awake && cr.out == nil {
		it := cr.line.items[0]
		it.leave()
		cr.out = it
		q.active.push(it)
	}
}
