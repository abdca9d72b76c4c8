package pods

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// record is what an agent must know of a pod after a restart.
type record struct {
	Pod *corev1.Pod `json:"pod"`
	IP  netip.Addr  `json:"ip"`
	// Start is when this node took the pod up.
	Start metav1.Time `json:"start"`
	// Done says that all containers have ended for good: the phase stays.
	Done bool `json:"done,omitempty"`
	// Expired says that activeDeadlineSeconds are over.
	Expired bool `json:"expired,omitempty"`
	// Stopping says that the pod is being deleted.
	Stopping   bool                        `json:"stopping,omitempty"`
	Containers map[string]*containerRecord `json:"containers"`
}

type containerRecord struct {
	// ID is the container in the runtime; empty when there is none.
	ID string `json:"id,omitempty"`
	// Restarts is how often it was started again.
	Restarts int `json:"restarts"`
	// Started is when it began to run; nil when it does not.
	Started *metav1.Time `json:"started,omitempty"`
	Image   Image        `json:"image"`
	// Exit is how it ended last, when it does not run. Last is the end before
	// the present run.
	Exit *exitRecord `json:"exit,omitempty"`
	Last *exitRecord `json:"last,omitempty"`
	// Backoff is the wait before the next start, Until its end.
	Backoff time.Duration `json:"backoff,omitempty"`
	Until   time.Time     `json:"until"`
	// Up says that the startup probe has succeeded, Ready the readiness probe.
	Up    bool `json:"up,omitempty"`
	Ready bool `json:"ready,omitempty"`
	// Pulled says that the image was looked up for this pod before.
	Pulled bool `json:"pulled,omitempty"`
}

type exitRecord struct {
	ID       string      `json:"id"`
	Code     int32       `json:"code"`
	Reason   string      `json:"reason"`
	Message  string      `json:"message,omitempty"`
	Started  metav1.Time `json:"started"`
	Finished metav1.Time `json:"finished"`
}

func newRecord(pod *corev1.Pod, now time.Time) *record {
	return &record{Pod: pod, Start: metav1.NewTime(now), Containers: map[string]*containerRecord{}}
}

// container returns the record of a container, new if there is none.
func (r *record) container(name string) *containerRecord {
	c := r.Containers[name]
	if c == nil {
		c = &containerRecord{}
		r.Containers[name] = c
	}
	return c
}

// containerID is the same for the same run of the same container: a start that
// was cut short is found again.
func containerID(uid, name string, restart int) string {
	sum := sha256.Sum256([]byte(uid + "/" + name + "/" + strconv.Itoa(restart)))
	return hex.EncodeToString(sum[:])
}

// records are the files of the pods of this node. They hold environments and so
// may hold secrets: mode 0600 in a folder of 0700.
type records struct{ dir string }

func (s records) file(uid string) string { return filepath.Join(s.dir, uid+".json") }

// save replaces a pod's record. It does not wait for the disk: what a power
// loss takes are records of containers that it took as well. sum is of the
// bytes that are there, so that the same ones are not written again.
func (s records) save(r *record, sum *uint64) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the pod's record: %w", err)
	}
	hash := fnv.New64a()
	_, _ = hash.Write(data)
	if hash.Sum64() == *sum {
		return nil
	}
	file := s.file(string(r.Pod.UID))
	if err := os.WriteFile(file+".tmp", data, 0o600); err != nil {
		return fmt.Errorf("write the pod's record: %w", err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		return fmt.Errorf("write the pod's record: %w", err)
	}
	*sum = hash.Sum64()
	return nil
}

func (s records) remove(uid string) error {
	if err := os.Remove(s.file(uid)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the pod's record: %w", err)
	}
	return os.RemoveAll(filepath.Join(s.dir, uid))
}

// load reads all records. One that cannot be read is set aside: the pod comes
// again from the control plane.
func (s records) load() (all []*record, broken []string, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder of pods: %w", err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read pods: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		file := filepath.Join(s.dir, e.Name())
		data, err := os.ReadFile(file)
		r := &record{}
		if err == nil {
			err = json.Unmarshal(data, r)
		}
		if err != nil || r.Pod == nil || r.Containers == nil {
			broken = append(broken, file)
			_ = os.Rename(file, file+".broken")
			continue
		}
		all = append(all, r)
	}
	return all, broken, nil
}
