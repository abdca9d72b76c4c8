#!/usr/bin/env bash
# make up: from nothing to a running shop that a git push changes.
. "$(dirname "$0")/lib.sh"
need_root
install_packages ca-certificates curl git

log=$data_dir/berth.log
repo=$root/.run/shop
kubeconfig=$data_dir/admin.kubeconfig
berth=$bin/berth
export KUBECONFIG=$kubeconfig

address() { sed -n 's/^ *server: *//p' "$kubeconfig"; }
answers() { [ -f "$kubeconfig" ] && curl -fsS --noproxy '*' --max-time 2 --cacert "$data_dir/ca.crt" "$(address)/readyz" >/dev/null 2>&1; }

start() {
	mkdir -p -m 0700 "$data_dir"
	say "starting berth (its log is $log)"
	# shellcheck disable=SC2086 # BERTH_FLAGS are several words
	setsid nohup "$berth" up --data-dir "$data_dir" ${BERTH_FLAGS:-} >>"$log" 2>&1 </dev/null &
	local pid=$! i
	for i in $(seq 150); do
		answers && return 0
		kill -0 "$pid" 2>/dev/null || { tail -n 5 "$log" >&2; die "berth ended; its log is $log"; }
		sleep 0.2
	done
	tail -n 5 "$log" >&2
	die "berth does not answer after 30 s; its log is $log"
}

# to_server is git with the server's own authority: one that the environment
# names would be taken instead.
to_server() { env -u GIT_SSL_CAINFO git -C "$repo" -c http.proxy= "$@"; }

# clone makes the repository that the user goes on with: the example, or what
# an earlier make up has left on the server.
clone() {
	[ -d "$repo/.git" ] && return 0
	mkdir -p "$repo"
	git -C "$repo" init -q -b main
	git -C "$repo" config user.name >/dev/null || git -C "$repo" config user.name "Shop owner"
	git -C "$repo" config user.email >/dev/null || git -C "$repo" config user.email "owner@shop.example"
	git -C "$repo" remote add berth "$(address)/git/shop.git"
	trust
	if to_server fetch -q berth main 2>/dev/null; then
		say "the server has the shop already: its repository is cloned to $repo"
		git -C "$repo" reset -q --hard berth/main
		return 0
	fi
	cp -r "$root/examples/shop/." "$repo"
	git -C "$repo" add -A
	git -C "$repo" commit -qm "The shop"
}

# trust lets git reach the server with the administrator's token, which stays
# in its file, also after the server moved.
trust() {
	git -C "$repo" remote set-url berth "$(address)/git/shop.git"
	git -C "$repo" config http.sslCAInfo "$data_dir/ca.crt"
	git -C "$repo" config credential.helper "!f() { echo username=admin; echo password=\$(cat $data_dir/admin.token); }; f"
	git -C "$repo" config branch.main.remote berth
	git -C "$repo" config branch.main.merge refs/heads/main
}

instructions() {
	cat <<EOF

The status page   $(address)/
                  log in with the token in $data_dir/admin.token
                  (the browser does not know this server's certificate: its authority is $data_dir/ca.crt)
kubectl           export KUBECONFIG=$kubeconfig
                  for another user: $berth kubeconfig --user ann --role viewer -o ann.kubeconfig
berth             $berth status

Change something and push it:

  cd $repo
  sed -i 's/replicas: 3/replicas: 5/' deploy/shop.cue
  git commit -am 'Five fronts' && git push

make down ends it all.
EOF
	if [ -n "${GIT_SSL_CAINFO:-}" ]; then
		echo
		echo "GIT_SSL_CAINFO is set here, and git would trust nothing else: unset GIT_SSL_CAINFO before you push."
	fi
}

if answers; then
	say "berth is up already; nothing was changed"
	"$berth" status || true
	instructions
	exit 0
fi
start
"$berth" image load "$bin/shop.tar"
clone
trust
say "pushing $repo to the built-in Git endpoint"
to_server push berth main 2>&1 | sed 's/^/  /'
say "waiting until the shop is healthy"
timeout 120 "$berth" status shop --watch | sed 's/^/  /' || die "the shop is not healthy after 2 minutes; see $berth status shop"
say "the shop is Healthy"
instructions
