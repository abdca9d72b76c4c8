#!/usr/bin/env bash
# Installs what the tests need.
. "$(dirname "$0")/lib.sh"
need_root
need_go
install_packages ca-certificates git procps etcd-server etcd-client iproute2 nftables conntrack busybox-static chromium openssh-client gnupg
"$root/hack/runtime.sh"
"$root/hack/image.sh"
if [ ! -f "$bin/busybox.tar" ]; then
	(cd "$root" && "$go" run ./hack/image -name berth.dev/busybox:1 -o "$bin/busybox.tar" -entrypoint /bin/busybox /bin/busybox=/bin/busybox)
fi
if [ ! -x "$bin/kubectl" ] || [ -n "$(find "$root/hack/kubectl" -newer "$bin/kubectl" -print -quit)" ]; then
	say "building kubectl"
	(cd "$root/hack/kubectl" && GOFLAGS=-buildvcs=false CGO_ENABLED=0 "$go" build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2" -o "$bin/kubectl" .)
fi
