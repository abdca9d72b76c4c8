package shared_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/shared"
	"berth.dev/berth/engine/store"
)

// place is a data directory.
type place struct {
	t    *testing.T
	dir  string
	told []string
}

func newPlace(t *testing.T) *place { return &place{t: t, dir: t.TempDir()} }

func (p *place) options(s store.Store) shared.Options {
	return shared.Options{
		Store: s, Dir: p.dir, Log: enginetest.Log(p.t),
		Files:   []shared.File{{Name: "ca", Mode: 0o644}, {Name: "later", Mode: 0o600}, {Name: "tokens", Mode: 0o600, Changes: true}},
		Changed: func(name string) { p.told = append(p.told, name) },
	}
}

func (p *place) join(s store.Store, content string) (*shared.Files, error) {
	return shared.Join(p.t.Context(), p.options(s), func() error {
		p.write("ca", content)
		p.write("tokens", content)
		return nil
	})
}

func (p *place) mustJoin(s store.Store, content string) *shared.Files {
	p.t.Helper()
	f, err := p.join(s, content)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func (p *place) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// read is what a file holds; - when it is not there.
func (p *place) read(name string) string {
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		return "-"
	}
	return string(b)
}

func (p *place) remove(name string) {
	p.t.Helper()
	if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) holds(name, want string) {
	p.t.Helper()
	if got := p.read(name); got != want {
		p.t.Errorf("%s is %q, want %q", name, got, want)
	}
}

func TestTheFirstMakesTheFilesAndOthersTakeThem(t *testing.T) {
	_, s := enginetest.Stored(t)
	first, second := newPlace(t), newPlace(t)
	first.mustJoin(s, "one")
	second.mustJoin(s, "two")
	second.holds("ca", "one")
	second.holds("tokens", "one")
	second.holds("later", "-")
	info, err := os.Stat(filepath.Join(second.dir, "ca"))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	first.mustJoin(s, "three")
	first.holds("ca", "one")
}

func TestADirectoryOfAnotherClusterIsRefused(t *testing.T) {
	_, s := enginetest.Stored(t)
	newPlace(t).mustJoin(s, "one")
	other := newPlace(t)
	other.write("ca", "of another cluster")
	other.write("tokens", "theirs")
	if _, err := other.join(s, "x"); err == nil || !strings.Contains(err.Error(), "move ca, later, tokens away") {
		t.Errorf("%v", err)
	}
	other.holds("ca", "of another cluster")
	other.holds("tokens", "theirs")
}

func TestWhoComesSecondAtTheSameTimeTakesWhatIsThere(t *testing.T) {
	_, s := enginetest.Stored(t)
	first, second := newPlace(t), newPlace(t)
	_, err := shared.Join(t.Context(), second.options(s), func() error {
		first.mustJoin(s, "one") // between the look and the write
		second.write("ca", "two")
		second.write("tokens", "two")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	second.holds("ca", "one")
	second.holds("tokens", "one")
}

func TestChangesWhileAServerWasAway(t *testing.T) {
	_, s := enginetest.Stored(t)
	here, there := newPlace(t), newPlace(t)
	here.mustJoin(s, "one")
	there.mustJoin(s, "")
	for _, step := range []struct {
		name, here, there string
		want              string
	}{
		{"changed there", "", "two", "two"},
		{"changed here", "three", "", "three"},
		{"changed at both, the first to be stored counts", "four", "five", "five"},
	} {
		if step.there != "" {
			there.write("tokens", step.there)
			there.mustJoin(s, "")
		}
		if step.here != "" {
			here.write("tokens", step.here)
		}
		here.mustJoin(s, "")
		there.mustJoin(s, "")
		for _, p := range []*place{here, there} {
			if got := p.read("tokens"); got != step.want {
				t.Errorf("%s: %q, want %q", step.name, got, step.want)
			}
		}
	}
	aside, _ := filepath.Glob(filepath.Join(here.dir, "tokens.local-*"))
	if len(aside) != 1 {
		t.Errorf("what was changed here is kept as %v", aside)
	}
	here.remove("tokens")
	here.mustJoin(s, "")
	there.mustJoin(s, "")
	there.holds("tokens", "-")
}

func TestChangesWhileServersRun(t *testing.T) {
	_, s := enginetest.Stored(t)
	here, there := newPlace(t), newPlace(t)
	a, b := here.mustJoin(s, "one"), there.mustJoin(s, "")
	enginetest.Go(t, a.Run)
	enginetest.Go(t, b.Run)
	here.write("tokens", "two")
	here.write("later", "a key that was made after the start")
	there.remove("ca")
	enginetest.Eventually(t, 10*time.Second, func() string {
		switch {
		case there.read("tokens") != "two":
			return "tokens are " + there.read("tokens")
		case there.read("later") == "-":
			return "the file that came later is missing"
		case there.read("ca") != "one":
			return "ca is " + there.read("ca")
		}
		return ""
	})
}
