package upstream

// Version and Minor are of the Kubernetes whose types and rules are built in.
const (
	Version = "v1.37.2"
	Minor   = "37"
)
