package usage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"berth.dev/berth/nodeagent/usage"
)

// machine is a made-up /proc and /sys.
type machine struct {
	t    *testing.T
	root string
}

func (m machine) write(path, content string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// node has been busy for a number of ticks and has a number of kB in use.
func (m machine) node(busy, used int) {
	m.write("proc/stat", fmt.Sprintf("cpu  %d 0 0 9999 50 0 0 0 7 0\ncpu0 1 2 3\n", busy))
	m.write("proc/meminfo", fmt.Sprintf("MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:  %d kB\n", 1000-used))
}

func TestBothVersionsOfControlGroups(t *testing.T) {
	const group = "/berth/podu/abc"
	for version, set := range map[string]func(m machine, cpu time.Duration, memory, inactive int){
		"v1": func(m machine, cpu time.Duration, memory, inactive int) {
			m.write("sys/fs/cgroup/cpuacct"+group+"/cpuacct.usage", strconv.FormatInt(int64(cpu), 10)+"\n")
			m.write("sys/fs/cgroup/memory"+group+"/memory.usage_in_bytes", strconv.Itoa(memory)+"\n")
			m.write("sys/fs/cgroup/memory"+group+"/memory.stat", fmt.Sprintf("inactive_file 3\ntotal_inactive_file %d\n", inactive))
		},
		"v2": func(m machine, cpu time.Duration, memory, inactive int) {
			m.write("sys/fs/cgroup"+group+"/cpu.stat", fmt.Sprintf("usage_usec %d\nuser_usec 1\n", cpu.Microseconds()))
			m.write("sys/fs/cgroup"+group+"/memory.current", strconv.Itoa(memory)+"\n")
			m.write("sys/fs/cgroup"+group+"/memory.stat", fmt.Sprintf("anon 5\ninactive_file %d\n", inactive))
		},
	} {
		t.Run(version, func(t *testing.T) {
			m := machine{t, t.TempDir()}
			clock := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			started := clock.Now()
			running := []usage.Container{
				{ID: "abc", PodUID: "u", Name: "main", Cgroup: group, Started: started},
				{ID: "gone", PodUID: "u", Name: "gone", Cgroup: "/berth/podu/gone", Started: started},
			}
			s := &usage.Sampler{Root: m.root, Clock: clock, Containers: func() []usage.Container { return running }}
			look := func(after time.Duration, cpu time.Duration, memory, inactive int) usage.Used {
				clock.Step(after)
				set(m, cpu, memory, inactive)
				m.node(int(cpu/(10*time.Millisecond)), memory/1000)
				s.Look()
				all, _ := s.Last()
				if len(all) != 1 || all[0].ID != "abc" || all[0].At != clock.Now() {
					t.Fatalf("found %+v", all)
				}
				return all[0].Used
			}
			// A new container is measured since its start.
			if u := look(10*time.Second, 5*time.Second, 9000, 1000); u.NanoCores != 500_000_000 || u.Memory != 8000 || u.Window != 10*time.Second {
				t.Errorf("at first %+v", u)
			}
			if _, node := s.Last(); !node.At.IsZero() {
				t.Errorf("one look at the node says %+v", node)
			}
			if u := look(15*time.Second, 35*time.Second, 7000, 8000); u.NanoCores != 2_000_000_000 || u.Memory != 0 || u.Window != 15*time.Second {
				t.Errorf("then %+v", u)
			}
			if _, node := s.Last(); node.NanoCores != 2_000_000_000 || node.Memory != 7*1024 {
				t.Errorf("the node has used %+v", node)
			}
			running = nil
			s.Look()
			if all, _ := s.Last(); len(all) != 0 {
				t.Errorf("nothing runs, and it found %+v", all)
			}
		})
	}
}

func TestThisMachine(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := &usage.Sampler{Root: "/", Clock: clock, Containers: func() []usage.Container { return nil }}
	s.Look()
	clock.Step(time.Second)
	s.Look()
	if _, node := s.Last(); node.At.IsZero() || node.Memory <= 0 || node.NanoCores < 0 {
		t.Errorf("this machine uses %+v", node)
	}
}
