package store

// AtStep has f called at each step of a large transaction. It must be called
// before the first.
func (e *Etcd) AtStep(f func(step string)) { e.at = f }
