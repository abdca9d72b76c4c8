package containerd

import (
	"fmt"
	"path/filepath"
	"strings"
)

// disabled are containerd's plugins that Berth has no use for.
func disabled() []string {
	return []string{
		"io.containerd.differ.v1.erofs",
		"io.containerd.grpc.v1.sandbox-controllers",
		"io.containerd.grpc.v1.sandboxes",
		"io.containerd.grpc.v1.streaming",
		"io.containerd.grpc.v1.transfer",
		"io.containerd.http.v1.pprof",
		"io.containerd.image-verifier.v1.bindir",
		"io.containerd.internal.v1.opt",
		"io.containerd.internal.v1.tracing",
		"io.containerd.metrics.v1.grpc-otel",
		"io.containerd.metrics.v1.grpc-prometheus",
		"io.containerd.monitor.container.v1.restart",
		"io.containerd.monitor.task.v1.cgroups",
		"io.containerd.mount-handler.v1.erofs",
		"io.containerd.nri.v1.nri",
		"io.containerd.sandbox.controller.v1.shim",
		"io.containerd.sandbox.store.v1.local",
		"io.containerd.server.v1.debug",
		"io.containerd.server.v1.grpc-tcp",
		"io.containerd.server.v1.metrics",
		"io.containerd.snapshotter.v1.blockfile",
		"io.containerd.snapshotter.v1.erofs",
		"io.containerd.snapshotter.v1.native",
		"io.containerd.streaming.v1.manager",
		"io.containerd.tracing.processor.v1.otlp",
		"io.containerd.transfer.v1.local",
		"io.containerd.ttrpc.v1.otelttrpc",
	}
}

// config is containerd's configuration file.
func (d *Daemon) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by berth at every start.\nversion = 3\nroot = %q\nstate = %q\n",
		filepath.Join(d.Dir, "root"), filepath.Join(d.Dir, "state"))
	b.WriteString("disabled_plugins = [\n")
	for _, name := range disabled() {
		fmt.Fprintf(&b, "  %q,\n", name)
	}
	b.WriteString("]\n")
	fmt.Fprintf(&b, "[plugins.'io.containerd.server.v1.grpc']\n  address = %q\n", d.Address())
	fmt.Fprintf(&b, "[plugins.'io.containerd.server.v1.ttrpc']\n  address = %q\n", d.Address()+".ttrpc")
	fmt.Fprintf(&b, "[plugins.'io.containerd.shim.v1.manager']\n  socket_dir = %q\n", d.shimSockets())
	return b.String()
}
