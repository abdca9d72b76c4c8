package access_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/engine/access"
)

func TestTokensCountAtOnceAndNoLonger(t *testing.T) {
	dir := t.TempDir()
	tokens, other := open(t, dir), open(t, dir) // a second process over the same file
	made, err := tokens.Create("ann", access.Viewer, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for what, tokens := range map[string]*access.Tokens{"who made it": tokens, "another": other, "a new one": open(t, dir)} {
		if u, ok := tokens.Check(made); !ok || u.Name != "ann" || u.Role != access.Viewer || len(u.Groups) == 0 {
			t.Errorf("%s: %+v %v", what, u, ok)
		}
	}
	list := other.List()
	if len(list) != 2 || list[0].Name != "admin" || list[1].Name != "ann" || list[1].Created.Unix() != 1_800_000_000 {
		t.Errorf("%+v", list)
	}
	content, err := os.ReadFile(filepath.Join(dir, "tokens"))
	if err != nil || strings.Contains(string(content), made) {
		t.Errorf("%v: the file holds a token in plain text", err)
	}
	if err := other.Delete("ann"); err != nil {
		t.Fatal(err)
	}
	if u, ok := tokens.Check(made); ok {
		t.Errorf("a deleted token opens for %+v", u)
	}
}

func TestTokensAreNotMadeOrDeletedByMistake(t *testing.T) {
	dir := t.TempDir()
	tokens := open(t, dir)
	if _, err := tokens.Create("ann", access.Admin, time.Now()); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"is the last":      errors.Join(tokens.Delete("admin"), tokens.Delete("ann")),
		"no token bob":     tokens.Delete("bob"),
		"there is a token": second(tokens.Create("ann", access.Admin, time.Now())),
		"none of admin":    second(tokens.Create("bob", "king", time.Now())),
		"cannot be the":    second(tokens.Create("system:masters", access.Viewer, time.Now())),
	} {
		var mistake access.UserError
		if !errors.As(err, &mistake) || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q: %v", what, err)
		}
	}
	if _, err := os.Stat(access.AdminTokenFile(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a token that was deleted is still there: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestAHalfFileLocksNobodyOut(t *testing.T) {
	dir := t.TempDir()
	tokens := open(t, dir)
	token := adminToken(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := tokens.Check(token); !ok {
		t.Error("the administrator cannot log in")
	}
}

func TestANodesTokenIsThatOfItsAgent(t *testing.T) {
	tokens := open(t, t.TempDir())
	made, err := tokens.Create("worker-1", access.Node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := tokens.Check(made); !ok || u.Name != "system:node:worker-1" || u.NodeName() != "worker-1" || u.Person() {
		t.Errorf("%+v %v", u, ok)
	}
}
