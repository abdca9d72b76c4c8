// Package usage measures what the containers of a node, and the node itself,
// use of processors and memory. It reads control groups of version 1 and 2 and
// /proc, and keeps the last two looks alone.
package usage

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// Interval is how often Run looks.
const Interval = 15 * time.Second

// Container is a running container to measure.
type Container struct {
	ID                 string
	PodUID             types.UID
	Namespace, PodName string
	Name               string
	// Cgroup is its path below the roots of the control groups.
	Cgroup string
	// Started is when it had used nothing.
	Started time.Time
}

// Used is what something used.
type Used struct {
	// At is the end of the time that was measured, Window its length.
	At     time.Time
	Window time.Duration
	// NanoCores is the mean over the window: 1e9 is one core.
	NanoCores int64
	// Memory is the working set at the end, in bytes: what cannot be taken back at once.
	Memory int64
}

// Measured is a container and what it used.
type Measured struct {
	Container
	Used
}

// Sampler looks again and again. All fields must be set.
type Sampler struct {
	// Containers lists those that run.
	Containers func() []Container
	// Root is where the file systems of the kernel are mounted: "/", but in tests.
	Root  string
	Clock clock.WithTicker

	mu         sync.Mutex
	containers map[string]Measured
	node       Used
	last       map[string]counters // by ID; "" is the node
}

// counters are what a look reads.
type counters struct {
	at     time.Time
	cpu    time.Duration // used since the start
	memory int64
}

// Run looks every Interval until the context ends.
func (s *Sampler) Run(ctx context.Context) error {
	t := s.Clock.NewTicker(Interval)
	defer t.Stop()
	for {
		s.Look()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C():
		}
	}
}

// Look measures since the last look; a new container since it was started.
func (s *Sampler) Look() {
	next, measured := map[string]counters{}, map[string]Measured{}
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	for _, c := range s.Containers() {
		now, err := s.container(c.Cgroup)
		if err != nil {
			continue // it has ended
		}
		before, ok := last[c.ID]
		if !ok {
			before = counters{at: c.Started}
		}
		next[c.ID] = now
		if u, ok := between(before, now); ok {
			measured[c.ID] = Measured{Container: c, Used: u}
		}
	}
	node, err := s.machine()
	var used Used
	if err == nil {
		next[""] = node
		used, _ = between(last[""], node)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.containers, s.node = next, measured, used
}

// between is what was used from one look to the next; false when that was no time.
func between(before, now counters) (Used, bool) {
	window := now.at.Sub(before.at)
	if before.at.IsZero() || window <= 0 || now.cpu < before.cpu {
		return Used{}, false
	}
	rate := float64(now.cpu-before.cpu) / float64(window)
	return Used{At: now.at, Window: window, NanoCores: int64(rate * 1e9), Memory: now.memory}, true
}

// Last returns what the last look has found. The node's time is zero when there
// was none yet.
func (s *Sampler) Last() (containers []Measured, node Used) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.containers {
		containers = append(containers, m)
	}
	return containers, s.node
}

func (s *Sampler) container(cgroup string) (counters, error) {
	root := filepath.Join(s.Root, "sys/fs/cgroup")
	cpu, err := readInt(filepath.Join(root, "cpuacct", cgroup, "cpuacct.usage")) // version 1, in ns
	if err != nil {
		return s.unified(filepath.Join(root, cgroup))
	}
	dir := filepath.Join(root, "memory", cgroup)
	memory, err := readInt(filepath.Join(dir, "memory.usage_in_bytes"))
	if err != nil {
		return counters{}, err
	}
	inactive, err := readField(filepath.Join(dir, "memory.stat"), "total_inactive_file")
	return counters{at: s.Clock.Now(), cpu: time.Duration(cpu), memory: max(memory-inactive, 0)}, err
}

// unified reads a control group of version 2.
func (s *Sampler) unified(dir string) (counters, error) {
	cpu, err := readField(filepath.Join(dir, "cpu.stat"), "usage_usec")
	if err != nil {
		return counters{}, err
	}
	memory, err := readInt(filepath.Join(dir, "memory.current"))
	if err != nil {
		return counters{}, err
	}
	inactive, err := readField(filepath.Join(dir, "memory.stat"), "inactive_file")
	return counters{at: s.Clock.Now(), cpu: time.Duration(cpu) * time.Microsecond, memory: max(memory-inactive, 0)}, err
}

// tick is the unit of /proc/stat, USER_HZ, which is the same on all
// architectures that Go has.
const tick = 10 * time.Millisecond

// machine reads what all processors have done since the machine's start.
func (s *Sampler) machine() (counters, error) {
	line, err := os.ReadFile(filepath.Join(s.Root, "proc/stat"))
	if err != nil {
		return counters{}, err
	}
	// proc(5): user nice system idle iowait irq softirq steal; the guests' time is in user.
	fields := strings.Fields(strings.SplitN(string(line), "\n", 2)[0])
	if len(fields) < 9 {
		return counters{}, fmt.Errorf("%q is not the first line of /proc/stat", line)
	}
	var busy int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return counters{}, err
		}
		busy += n
	}
	total, err := readField(filepath.Join(s.Root, "proc/meminfo"), "MemTotal:")
	if err != nil {
		return counters{}, err
	}
	free, err := readField(filepath.Join(s.Root, "proc/meminfo"), "MemAvailable:")
	return counters{at: s.Clock.Now(), cpu: time.Duration(busy) * tick, memory: (total - free) * 1024}, err
}

func readInt(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// readField reads the number that follows a name in a file of such lines.
func readField(file, name string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 1 && fields[0] == name {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
