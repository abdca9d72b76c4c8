package pods

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// inbox holds what came for a worker since it looked last.
type inbox struct {
	mu     sync.Mutex
	mail   mail
	notify chan struct{}
}

type mail struct {
	pod    *corev1.Pod
	gone   bool
	config bool // a ConfigMap or Secret that the pod uses has changed
	exits  []exitMail
	probes []probeMail
	pulls  []pullMail
}

type exitMail struct {
	name, id string
	exit     Exit
	err      error
}

type probeMail struct {
	name, id string
	kind     probeKind
	ok       bool
	message  string
	// verdict says that a threshold was reached.
	verdict bool
}

type pullMail struct {
	name  string
	image Image
	err   error
}

func newInbox() *inbox { return &inbox{notify: make(chan struct{}, 1)} }

func (i *inbox) put(f func(*mail)) {
	i.mu.Lock()
	f(&i.mail)
	i.mu.Unlock()
	select {
	case i.notify <- struct{}{}:
	default:
	}
}

func (i *inbox) take() mail {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.mail
	i.mail = mail{}
	return m
}
