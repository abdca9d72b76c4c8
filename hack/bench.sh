#!/usr/bin/env bash
# make bench: the figures that docs/performance.md quotes. Run it on a machine
# that does nothing else.
. "$(dirname "$0")/lib.sh"
need_root
cd "$root"
one() { "$go" test -run '^$' -timeout 20m "$@" | grep -vE '^(goos|goarch|pkg|cpu|PASS|ok)'; }

say "# The way of a push: real git, real containers, one machine"
one -bench . -benchtime 1x ./test/e2e | sed 's/\t/\n\t/g' | grep -vE '^\s*$|ns/op'
say "# Compiling 1,000 objects and 1,000 #Apps beside plain CUE, and after a change of one file"
one -bench 'Compile|Changed|Start' -benchtime 5x ./cue
say "# Memory of the compiler over 1,000 commits"
one -bench Memory -benchtime 1x ./cue
say "# berth validate of examples/shop"
one -bench ValidateShop -benchtime 5x ./examples
say "# Plan and apply of 10,000 objects; a commit to each of 100 Sources; memory of the engine over commits"
one -bench 'Apply10000|OneOfThousand|HundredSources' -benchtime 5x ./engine/sync
one -bench Memory -benchtime 1x ./engine/sync
say "# The store: writes with 32 writers, synced to disk"
one -bench . -benchtime 2s ./engine/store
say "# A write and a read of one of 4 clients: the store in a file, in etcd, in etcd of three members on this disk"
one -bench . -benchtime 1x ./test/ha | sed 's/\t/\n\t/g' | grep -vE '^\s*$|ns/op'
say "# The API: lists of 10,000 Pods, 200 calls a second beside them, 1,000 watchers, a start with 100,000"
one -bench . -benchtime 3x ./engine/apiserver
say "# The controllers: a reconcile of what is as it should be; a Deployment from 1 to 1,000 replicas"
one -bench 'Unchanged|Endpoints|ClaimEvent' -benchmem ./engine/controllers
one -bench ThousandReplicas -benchtime 1x ./engine/controllers
say "# The scheduler: 5,000 nodes, 10,000 Pods that wait; one that ends; victims among 150,000"
one -bench . -benchtime 3x ./engine/scheduler
say "# A Deployment of 1,000 replicas rolled beside 29,000 Pods"
one -bench Roll -benchtime 3x ./engine/simulate
