package archive_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"berth.dev/berth/sources/archive"
)

// TestHostileArchives refuses every name that could leave the tree, and bounds
// what is read.
func TestHostileArchives(t *testing.T) {
	for _, h := range []tar.Header{
		{Name: "../a.yaml", Typeflag: tar.TypeReg},
		{Name: "/etc/a.yaml", Typeflag: tar.TypeReg},
		{Name: "a/../../b.yaml", Typeflag: tar.TypeReg},
		{Name: `a\b.yaml`, Typeflag: tar.TypeReg},
		{Name: "a.yaml", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		{Name: "a.yaml", Typeflag: tar.TypeChar},
		{Name: "a.sh", Typeflag: tar.TypeReg},
		{Name: "a.yaml", Typeflag: tar.TypeReg, Size: 5 << 20},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		_ = w.Close()
		if _, err := archive.Read(&b, 0); err == nil || !strings.Contains(err.Error(), "read the archive") {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
}
