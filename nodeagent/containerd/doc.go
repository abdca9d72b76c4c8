// Package containerd implements pods.Runtime, pods.Images and pods.Execer on
// containerd, and owns Berth's own containerd process: its configuration, its
// pid file and its start. It reads nothing of the cluster and decides nothing:
// what to run, and when again, is package pods' work. No other package imports
// containerd.
package containerd

// namespace is where all of Berth's images and containers live.
const namespace = "berth"

// snapshotter holds the containers' root file systems.
const snapshotter = "overlayfs"
