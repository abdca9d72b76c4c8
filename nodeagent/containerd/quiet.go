package containerd

import (
	"github.com/containerd/log"
)

// quiet keeps containerd's client from writing lines of its own to stderr: what
// it has to say comes back as an error.
func quiet() { _ = log.SetLevel("fatal") }
