#!/usr/bin/env bash
# Builds what containers run on, from its Go modules, into bin/: containerd
# without the parts that Berth does not use, its runc shim, and runc with seccomp.
. "$(dirname "$0")/lib.sh"

containerd=v2.4.2
runc=v1.5.0
# Without CRI and the snapshotters that need tools of their own.
containerd_tags="no_cri no_btrfs no_devmapper no_zfs no_aufs"
# The shim speaks ttrpc; without gRPC it is a third of the size.
shim_tags="no_grpc"

want="containerd $containerd [$containerd_tags], shim [$shim_tags], runc $runc"
stamp=$bin/.runtime
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -x "$bin/containerd" ] && [ -x "$bin/containerd-shim-runc-v2" ] && [ -x "$bin/runc" ]; then
	exit 0
fi
need_go
install_packages ca-certificates gcc libc6-dev libseccomp-dev pkg-config
mkdir -p "$bin"
# GOFLAGS of the caller would reach modules that are not ours.
build() { # tags cgo package
	say "building $3 (some minutes the first time)"
	GOFLAGS=-buildvcs=false GOBIN=$bin CGO_ENABLED=$2 "$go" install -trimpath -ldflags "-s -w" -tags "$1" "$3"
}
build "seccomp" 1 "github.com/opencontainers/runc@$runc"
build "$containerd_tags" 0 "github.com/containerd/containerd/v2/cmd/containerd@$containerd"
build "$shim_tags" 0 "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@$containerd"
printf '%s' "$want" >"$stamp"
