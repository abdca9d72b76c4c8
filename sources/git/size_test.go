package git_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
)

func noise(t *testing.T, size int) string {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func bounded(url, limit string) *v1alpha1.Source {
	s := source(url)
	q := resource.MustParse(limit)
	s.Spec.MaxSize = &q
	return s
}

// TestTooLarge: what is larger than is allowed is said once, and not downloaded
// again at each poll.
func TestTooLarge(t *testing.T) {
	r := newRemote(t)
	want := r.push(map[string]string{"a.yaml": "a", "big": noise(t, 3<<20)})
	dir := t.TempDir()
	f := git.New(git.Options{Dir: dir, AllowLocal: true})
	for range 3 {
		_, err := f.Fetch(t.Context(), bounded(r.url, "1Mi"))
		var large *git.ErrTooLarge
		if !errors.As(err, &large) || !strings.Contains(err.Error(), "more than spec.maxSize (1Mi) allows: 1.0 MiB were reached; raise spec.maxSize") {
			t.Fatalf("%v", err)
		}
	}
	if n := r.posts.Load(); n != 1 {
		t.Errorf("it was downloaded %d times", n)
	}
	if left := folderSize(t, dir); left > 1<<20 {
		t.Errorf("%d bytes are left on the disk", left)
	}
	if rev := fetch(t, f, bounded(r.url, "4Mi")); rev.Commit != want || content(t, rev, "a.yaml") != "a" {
		t.Errorf("with more room: %+v", rev)
	}
}

// TestCloneThatGrows is made anew when it would take more than it may.
func TestCloneThatGrows(t *testing.T) {
	r := newRemote(t)
	dir := t.TempDir()
	f := git.New(git.Options{Dir: dir, AllowLocal: true})
	for i := range 6 {
		want := r.push(map[string]string{"a.yaml": fmt.Sprint(i), "big": noise(t, 1<<20)})
		if rev := fetch(t, f, bounded(r.url, "3Mi")); rev.Commit != want || rev.Rewritten || content(t, rev, "a.yaml") != fmt.Sprint(i) {
			t.Fatalf("push %d: %+v", i, rev)
		}
	}
	if left := folderSize(t, dir); left > 7<<20 { // the clone and the one before
		t.Errorf("%d bytes are on the disk", left)
	}
}

func folderSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestEndlessAdvertisement: a remote that never ends its list of refs, with many
// of them, with long ones, or with a refusal without end.
func TestEndlessAdvertisement(t *testing.T) {
	const hash = "0123456789012345678901234567890123456789"
	for name, c := range map[string]struct {
		status int
		ref    func(i int) string
		want   string
	}{
		"many refs":              {200, func(i int) string { return fmt.Sprintf("refs/heads/b%d", i) }, "more than 100000 refs"},
		"long refs":              {200, func(i int) string { return fmt.Sprintf("refs/heads/%d%s", i, strings.Repeat("x", 60_000)) }, "more than 64 MiB"},
		"a refusal that goes on": {503, func(int) string { return strings.Repeat("away ", 10_000) }, "the server answers 503: "},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				w.WriteHeader(c.status)
				line := func(s string) error { _, err := fmt.Fprintf(w, "%04x%s", len(s)+4, s); return err }
				_ = line("# service=git-upload-pack\n")
				_, _ = w.Write([]byte("0000"))
				_ = line(hash + " HEAD\x00ofs-delta shallow\n")
				for i := 0; q.Context().Err() == nil; i++ {
					if line(hash+" "+c.ref(i)) != nil {
						return
					}
				}
			}))
			defer web.Close()
			before := heap()
			_, err := fetcher(t).Fetch(t.Context(), source(web.URL+"/x.git"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%.300v", err)
			}
			if grown := heap() - before; grown > 200<<20 {
				t.Errorf("the memory has grown by %d MiB", grown>>20)
			}
		})
	}
}

func heap() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// TestLargeHistoryAndBlob: 50,000 commits and a blob of 200 MB outside the path.
// Neither fills the memory, and another Source is not held up.
func TestLargeHistoryAndBlob(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	r := newRemote(t)
	r.importHistory(50_000, 200_000_000)
	small := newRemote(t)
	small.push(map[string]string{"a.yaml": "a"})
	dir := t.TempDir()
	f := git.New(git.Options{Dir: dir, AllowLocal: true})
	src := source(r.url)
	src.Spec.Path = "deploy"

	before, highest := heap(), int64(0)
	type result struct {
		commit string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		rev, err := f.Fetch(t.Context(), src)
		done <- result{rev.Commit, err}
	}()
	other := source(small.url)
	other.Name = "other"
	for others := 0; ; {
		select {
		case got := <-done:
			if want := r.git(r.bare, "rev-parse", "main"); got.err != nil || got.commit != want {
				t.Fatalf("%v, want %s", got, want)
			}
			if others == 0 {
				t.Error("no other Source was fetched meanwhile")
			}
			if grown := highest - before; grown > 512<<20 {
				t.Errorf("the memory has grown by %d MiB", grown>>20)
			}
			if size := folderSize(t, dir); size > 220<<20 { // the blob, and not 50,000 commits
				t.Errorf("%d bytes were fetched", size)
			}
			return
		default:
			highest = max(highest, heap())
			fetch(t, f, other)
			others++
			time.Sleep(time.Millisecond)
		}
	}
}

// importHistory makes main of a number of commits, the last of which holds a blob
// of a size, and one small file below deploy.
func (r *remote) importHistory(commits, size int) {
	r.t.Helper()
	r.git(r.bare, "config", "core.compression", "0")
	r.git(r.bare, "config", "pack.compression", "0")
	var in bytes.Buffer
	for i := range commits {
		at := 1_700_000_000 + i
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Ann <ann@example.org> %d +0000\ndata 1\nx\nM 100644 inline deploy/a.yaml\ndata %d\n%06d\n", at, 6, i)
	}
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Ann <ann@example.org> 1800000000 +0000\ndata 1\nx\nM 100644 inline media/film\ndata %d\n", size)
	in.WriteString(noise(r.t, size))
	in.WriteString("\ndone\n")
	r.pipe(r.bare, &in, "fast-import", "--quiet", "--done", "--depth=0")
}
