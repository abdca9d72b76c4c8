package recovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
)

// File is the name of the file in the data directory.
const File = "recovery.json"

const fileFormat = 1

// Saved is what a recovery file holds: a line about it, a line for each object,
// and the SHA-256 of all that.
type Saved struct {
	// Revision of the store at that time.
	Revision int64
	Time     time.Time
	Objects  []client.Object
}

type head struct {
	Format   int       `json:"berthRecovery"`
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	Objects  int       `json:"objects"`
}

type tail struct {
	SHA256 string `json:"sha256"`
}

func (s *Saved) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	if err := e.Encode(head{Format: fileFormat, Revision: s.Revision, Time: s.Time.UTC().Truncate(time.Second), Objects: len(s.Objects)}); err != nil {
		return nil, err
	}
	for _, obj := range s.Objects {
		if err := e.Encode(obj); err != nil {
			return nil, fmt.Errorf("%s %s: %w", obj.GetObjectKind().GroupVersionKind().Kind, obj.GetName(), err)
		}
	}
	sum := sha256.Sum256(b.Bytes())
	err := e.Encode(tail{SHA256: hex.EncodeToString(sum[:])})
	return b.Bytes(), err
}

func (s *Saved) write(path string) error {
	b, err := s.encode()
	if err == nil {
		err = store.WriteFile(path, b)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Read reads a recovery file. The error of one that is missing is fs.ErrNotExist;
// one that is not as it was written is an error as a whole.
func Read(path string, r *resources.Resources) (*Saved, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := decode(b, r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

func decode(b []byte, r *resources.Resources) (*Saved, error) {
	at := bytes.LastIndexByte(bytes.TrimRight(b, "\n"), '\n') + 1
	var t tail
	sum := sha256.Sum256(b[:at])
	if json.Unmarshal(b[at:], &t) != nil || t.SHA256 != hex.EncodeToString(sum[:]) {
		return nil, errors.New("it is not as it was written")
	}
	lines := bytes.Split(bytes.TrimRight(b[:at], "\n"), []byte("\n"))
	var h head
	if err := json.Unmarshal(lines[0], &h); err != nil {
		return nil, err
	}
	if h.Format != fileFormat {
		return nil, fmt.Errorf("it has format %d, and this version of Berth knows format %d", h.Format, fileFormat)
	}
	s := &Saved{Revision: h.Revision, Time: h.Time}
	for _, line := range lines[1:] {
		var kind struct{ APIVersion, Kind string }
		if err := json.Unmarshal(line, &kind); err != nil {
			return nil, err
		}
		row, ok := r.ByKind(schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind))
		if !ok {
			continue // a kind that this version does not keep
		}
		obj := row.New()
		if err := json.Unmarshal(line, obj); err != nil {
			return nil, err
		}
		s.Objects = append(s.Objects, obj)
	}
	return s, nil
}
