package pods

import "time"

// The waits before a container that ended is started again: none, then 10 s,
// doubling to 5 min; a run of 10 min begins anew (Pod lifecycle documentation).
const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
	backoffReset = 10 * time.Minute
)

// ended sets when a container may start again after it ran for so long.
func (c *containerRecord) ended(at time.Time, ran time.Duration) {
	if ran >= backoffReset {
		c.Backoff = 0
	}
	c.Until = at.Add(c.Backoff)
}

// restarting raises the next wait.
func (c *containerRecord) restarting() { c.Backoff = nextBackoff(c.Backoff) }

func nextBackoff(d time.Duration) time.Duration {
	if d == 0 {
		return backoffFirst
	}
	return min(2*d, backoffMax)
}
