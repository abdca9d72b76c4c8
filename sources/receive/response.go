package receive

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/object"
)

const (
	receiveCaps = "report-status delete-refs side-band-64k quiet ofs-delta no-thin agent=berth"
	uploadCaps  = "multi_ack_detailed no-done side-band-64k ofs-delta shallow no-progress include-tag allow-tip-sha1-in-want allow-reachable-sha1-in-want agent=berth"
	// maxBand is what one packet of a side band carries.
	maxBand = 65515
)

// advertise lists the refs.
func (s *Server) advertise(w http.ResponseWriter, repo *repository, service string) {
	refs, err := repo.refs()
	if err != nil {
		http.Error(w, "the repository cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-"+service+"-advertisement")
	var out bytes.Buffer
	e := pktline.NewEncoder(&out)
	_ = e.Encodef("# service=%s\n", service)
	_ = e.Flush()
	caps := receiveCaps
	var lines []string
	if service == "git-upload-pack" {
		caps = uploadCaps
		if h, ok := refs["refs/heads/main"]; ok {
			caps += " symref=HEAD:refs/heads/main"
			lines = append(lines, h.String()+" HEAD")
		}
	}
	for _, name := range sortedRefs(refs) {
		lines = append(lines, refs[name].String()+" "+name)
		if service == "git-upload-pack" && strings.HasPrefix(name, "refs/tags/") {
			if tag, err := object.GetTag(repo.reader(), refs[name]); err == nil {
				lines = append(lines, tag.Target.String()+" "+name+"^{}")
			}
		}
	}
	if len(lines) == 0 {
		lines = []string{plumbing.ZeroHash.String() + " capabilities^{}"}
	}
	lines[0] += "\x00" + caps
	for _, line := range lines {
		_ = e.Encodef("%s\n", line)
	}
	_ = e.Flush()
	_, _ = w.Write(out.Bytes())
}

// response writes packets, each out to the client at once.
type response struct {
	w       http.ResponseWriter
	control *http.ResponseController
	mu      sync.Mutex
	began   bool
}

func (r *response) begin() error {
	r.began = true
	r.w.WriteHeader(http.StatusOK)
	return r.control.Flush()
}

// band writes to one of the side bands: 1 data, 2 progress.
func (r *response) band(n byte, content []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(content) > 0 {
		chunk := content[:min(len(content), maxBand)]
		content = content[len(chunk):]
		if _, err := fmt.Fprintf(r.w, "%04x%c%s", len(chunk)+5, n, chunk); err != nil {
			return err
		}
	}
	if n == 2 {
		return r.control.Flush()
	}
	return nil
}

// line tells the user a text; each of its lines becomes a "remote: " line.
func (r *response) line(text string) {
	if text != "" {
		_ = r.band(2, []byte(strings.TrimRight(text, "\n")+"\n"))
	}
}

// progress is a writer whose content reaches the user as it comes.
func (r *response) progress() io.Writer { return progress{r} }

type progress struct{ r *response }

func (p progress) Write(b []byte) (int, error) {
	if err := p.r.band(2, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// data is a writer to the band that carries packs.
type data struct{ r *response }

func (d data) Write(b []byte) (int, error) {
	if err := d.r.band(1, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// report tells git what became of each ref.
func (r *response) report(unpacked error, commands []*command) error {
	var out bytes.Buffer
	e := pktline.NewEncoder(&out)
	status := "ok"
	if unpacked != nil {
		status = short(unpacked.Error())
	}
	_ = e.Encodef("unpack %s\n", status)
	for _, c := range commands {
		if c.refused == "" {
			_ = e.Encodef("ok %s\n", c.ref)
		} else {
			_ = e.Encodef("ng %s %s\n", c.ref, c.refused)
		}
	}
	_ = e.Flush()
	if err := r.band(1, out.Bytes()); err != nil {
		return err
	}
	_, err := io.WriteString(r.w, "0000")
	return err
}
