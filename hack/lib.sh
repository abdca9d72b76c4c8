# Shared by the scripts of hack/; to be sourced.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/bin
data_dir=${BERTH_DATA_DIR:-/var/lib/berth}
go=$(command -v go || true)
[ -n "$go" ] || go=/usr/local/go/bin/go

say() { printf '%s\n' "$*"; }

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "this needs root: run it with sudo, or as root"; }

need_go() {
	[ -x "$go" ] || die "Go is missing: install Go 1.26 (https://go.dev/dl) and put it on the PATH"
	case $("$go" env GOVERSION) in
	go1.2[6-9]* | go1.[3-9][0-9]*) ;;
	*) die "Go 1.26 or newer is needed, this is $("$go" env GOVERSION)" ;;
	esac
}

# install_packages NAME...: Debian packages that are not there yet.
install_packages() {
	local missing=() p
	for p in "$@"; do
		dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$' || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	need_root
	say "installing ${missing[*]}"
	local log
	log=$(mktemp)
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "installing ${missing[*]} failed"
	fi
	rm -f "$log"
}
