#!/usr/bin/env bash
# Builds the image of the examples, without a registry and without docker.
. "$(dirname "$0")/lib.sh"
need_go
out=$bin/shop.tar
[ -f "$out" ] && [ -z "$(find "$root/examples/shop/app" "$root/hack/image" -newer "$out" -print -quit)" ] && exit 0
mkdir -p "$bin"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$root"
CGO_ENABLED=0 "$go" build -trimpath -ldflags "-s -w" -o "$tmp/shop" ./examples/shop/app
"$go" run ./hack/image -name berth.dev/shop:1 -o "$out" -entrypoint /shop "$tmp/shop=/shop"
