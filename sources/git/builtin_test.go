package git_test

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"berth.dev/berth/sources/receive"
)

// TestFetchFromTheBuiltInEndpoint fetches from another Berth: shallow first,
// then what is new, then history that was rewritten.
func TestFetchFromTheBuiltInEndpoint(t *testing.T) {
	r := newRemote(t)
	web := httptest.NewServer(receive.New(receive.Options{Dir: t.TempDir(), AllowForce: func(string, string, string) bool { return true }}))
	defer web.Close()
	url := web.URL + "/git/shop.git"
	r.git(r.work, "remote", "set-url", "origin", url)
	f := fetcher(t)
	var first string
	for i := range 4 {
		want := r.push(map[string]string{"a.yaml": fmt.Sprint(i % 2), fmt.Sprintf("d/%d.yaml", i): "x"})
		if i == 0 {
			first = want
		}
		rev := fetch(t, f, source(url))
		if rev.Commit != want || rev.Rewritten || content(t, rev, "a.yaml") != fmt.Sprint(i%2) {
			t.Errorf("push %d: %+v", i, rev)
		}
	}
	r.git(r.work, "reset", "-q", "--hard", first)
	want := r.push(map[string]string{"b.yaml": "b"})
	if rev := fetch(t, f, source(url)); rev.Commit != want || !rev.Rewritten || content(t, rev, "a.yaml") != "0" {
		t.Errorf("rewritten: %+v", rev)
	}
}
