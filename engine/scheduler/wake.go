package scheduler

// wake looks which refusals the changes since the last call may have ended.
func (q *Queue) wake() {
	touched := q.cluster.touched
	if len(touched) == 0 && q.cluster.now == q.seen {
		return
	}
	for _, n := range touched {
		n.touched = false
	}
	q.cluster.touched = nil
	if len(touched) > 0 {
		for _, cr := range q.crowds {
			q.rouse(cr, touched)
		}
	} else {
		for cr := range q.wary {
			q.rouse(cr, nil)
		}
	}
	for it := range q.nominated {
		if it.class.changed(it.since) || q.cluster.helpsNominated(it, touched) {
			q.Retry(it.id)
		}
	}
	q.seen = q.cluster.now
}

// note keeps in mind which crowds are wary.
func (q *Queue) note(cr *crowd) {
	if delete(q.wary, cr); cr.wary != 0 {
		q.wary[cr] = true
	}
}

// rouse wakes a crowd that a change may help.
func (q *Queue) rouse(cr *crowd, touched []*node) {
	helped := q.cluster.helps(cr, touched)
	q.note(cr)
	if helped {
		cr.awake = true
		q.refill(cr)
	}
}

// helps reports whether changes may have ended a refusal, and notes which.
func (c *Cluster) helps(cr *crowd, touched []*node) bool {
	k := cr.class
	if k.blocked != "" || cr.anywhere {
		return false
	}
	if cr.wary != 0 && k.changed(cr.since) || cr.refusal.Reasons&NoNodes != 0 && c.Nodes() > 0 {
		cr.anywhere = true
		return true
	}
	preempts := !k.never && c.anyBelow(k.priority)
	helped := false
	for _, n := range touched {
		why := c.against(k, n, "")
		cr.wary |= why & apart // what is in the way there by now may go elsewhere
		if why != 0 && !(preempts && c.yields(k, n)) {
			continue
		}
		helped = true
		if len(cr.hints) == maxHints {
			cr.anywhere = true
			break
		}
		cr.hints = append(cr.hints, n)
	}
	return helped
}

// stillHelps reports whether a crowd that was woken may still have a chance.
func (c *Cluster) stillHelps(cr *crowd) bool {
	if cr.anywhere {
		return true
	}
	preempts := !cr.class.never && c.anyBelow(cr.class.priority)
	for _, n := range cr.hints {
		why := c.against(cr.class, n, "")
		if why == 0 || (preempts && c.yields(cr.class, n)) {
			return true
		}
		cr.wary |= why & apart
	}
	return false
}

func (c *Cluster) helpsNominated(it *item, touched []*node) bool {
	r := c.reserved[it.id]
	if r == nil {
		return true
	}
	for _, n := range touched {
		if n == r.node {
			if _, fits := c.claims(it.id, it.class); fits || !r.awaits() || !c.try(it.class, it.id).open(n) {
				return true
			}
		} else if c.fitsOn(it.class, n, it.id) {
			return true
		}
	}
	return false
}

// changed reports whether a count that a class goes by has changed since.
func (k *class) changed(since uint64) bool {
	if k.identity.changed > since {
		return true
	}
	for _, list := range [][]*term{k.near, k.apart, k.identity.terms} {
		for _, t := range list {
			if t.changed > since {
				return true
			}
		}
	}
	for _, s := range k.hard {
		if s.changed > since {
			return true
		}
	}
	return false
}
