// Package pods is the state machine of a Pod on its node. It owns the pods'
// status in the cluster, their records on this node's disk, and the decision
// what is started, restarted and stopped, and when. It reads the Pods that are
// bound to its node, and acts through Runtime, Images, Network and Volumes,
// which it declares. It never schedules, and never looks at another node's pods.
//
// Each pod has a goroutine, its worker: events come into its inbox (a changed
// Pod, an exit, a probe's answer, a finished pull), and a step brings the pod
// nearer to what it should be. What a worker needs after a restart of the agent
// is in its record: a new agent adopts what runs.
package pods
