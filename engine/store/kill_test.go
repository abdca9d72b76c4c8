package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth.dev/berth/engine/store"
)

// killedStore is set in the child of TestKilledStoreKeepsWhatItAcknowledged.
const killedStore = "BERTH_TEST_KILLED_STORE"

const (
	killWriters = 6
	killKeys    = 5
)

// TestKilledStoreKeepsWhatItAcknowledged ends a process that writes with
// SIGKILL, again and again on the same file. Each transaction of a writer puts
// its number under several keys, and is reported when it is acknowledged.
func TestKilledStoreKeepsWhatItAcknowledged(t *testing.T) {
	if path := os.Getenv(killedStore); path != "" {
		writeUntilKilled(path)
		return
	}
	kills := 200
	if testing.Short() {
		kills = 20
	}
	path := filepath.Join(t.TempDir(), "store.db")
	rng := rand.New(rand.NewPCG(3, 5))
	acknowledged := make([]uint64, killWriters)
	total, compacted := 0, 0
	for kill := range kills {
		after := 40*time.Millisecond + time.Duration(rng.IntN(160))*time.Millisecond
		out := runAndKill(t, path, after)
		for line := range strings.Lines(out) {
			writer, number, ok := strings.Cut(strings.TrimSpace(line), " ")
			w, err1 := strconv.Atoi(writer)
			n, err2 := strconv.ParseUint(number, 10, 64)
			if !ok || err1 != nil || err2 != nil || !strings.HasSuffix(line, "\n") {
				continue // cut off by the kill
			}
			acknowledged[w] = max(acknowledged[w], n)
			total++
		}
		if _, err := os.Stat(path + ".new"); err == nil {
			compacted++
		}
		checkKilled(t, path, acknowledged)
		if t.Failed() {
			t.Fatalf("after kill %d", kill+1)
		}
	}
	t.Logf("%d kills, %d transactions acknowledged, %d kills within a compaction", kills, total, compacted)
	if total < 20*kills {
		t.Errorf("only %d transactions in %d runs: nothing was tested", total, kills)
	}
}

// writeUntilKilled is the child: it never ends by itself.
func writeUntilKilled(path string) {
	s, err := store.OpenBolt(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go s.Run(context.Background())
	go func() {
		for { // compactions are under way most of the time
			_ = s.Compact(context.Background())
		}
	}()
	var out sync.Mutex
	for w := range killWriters {
		go func() {
			kv, _, _ := s.Get(context.Background(), killKey(w, 0))
			n := uint64(0)
			if len(kv.Value) > 0 {
				n = binary.BigEndian.Uint64(kv.Value)
			}
			for {
				n++
				if _, err := s.Txn(context.Background(), killOps(w, n)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Printf("%d %d\n", w, n)
				out.Unlock()
			}
		}()
	}
	select {}
}

func killKey(writer, i int) string { return fmt.Sprintf("/w%d/%d", writer, i) }

// killOps put a number under all keys of a writer, and delete and make one more
// in turn.
func killOps(w int, n uint64) []store.Op {
	var ops []store.Op
	for i := range killKeys {
		value := binary.BigEndian.AppendUint64(nil, n)
		ops = append(ops, store.Op{Key: killKey(w, i), Value: append(value, bytes.Repeat([]byte{byte(n)}, 400)...), Expect: store.Any})
	}
	odd := store.Op{Key: fmt.Sprintf("/odd/%d", w), Expect: store.Any}
	if n%2 == 1 {
		odd.Value = binary.BigEndian.AppendUint64(nil, n)
	}
	return append(ops, odd)
}

// runAndKill runs the child and returns what it printed.
func runAndKill(t *testing.T, path string, after time.Duration) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledStoreKeepsWhatItAcknowledged$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), killedStore+"="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The time counts from the first acknowledgement, so that each run writes.
	lines := bufio.NewReader(out)
	first, _ := lines.ReadString('\n')
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var rest bytes.Buffer
	_, _ = rest.ReadFrom(lines)
	_ = cmd.Wait() // killed
	if stderr.Len() > 0 {
		t.Fatalf("the child says: %s", stderr.String())
	}
	return first + rest.String()
}

func checkKilled(t *testing.T, path string, acknowledged []uint64) {
	t.Helper()
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer run(t, s)()
	for w := range killWriters {
		var numbers []uint64
		for i := range killKeys {
			kv, ok, _ := s.Get(t.Context(), killKey(w, i))
			if !ok {
				numbers = append(numbers, 0)
				continue
			}
			numbers = append(numbers, binary.BigEndian.Uint64(kv.Value))
		}
		for _, n := range numbers {
			if n != numbers[0] {
				t.Errorf("writer %d: half a transaction is there: %v", w, numbers)
				break
			}
		}
		if numbers[0] < acknowledged[w] {
			t.Errorf("writer %d: %d was acknowledged, %d is there", w, acknowledged[w], numbers[0])
		}
		if _, there, _ := s.Get(t.Context(), fmt.Sprintf("/odd/%d", w)); there != (numbers[0]%2 == 1) {
			t.Errorf("writer %d at %d: its odd key is there: %v", w, numbers[0], there)
		}
		acknowledged[w] = max(acknowledged[w], numbers[0])
	}
}
