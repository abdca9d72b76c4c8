package web_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"berth.dev/berth/engine/access"
)

// addViewer adds a token of a viewer to the token file, in its format.
func addViewer(t *testing.T, dir string) string {
	t.Helper()
	token := access.NewToken()
	sum := sha256.Sum256([]byte(token))
	f, err := os.OpenFile(filepath.Join(dir, "tokens"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s %s wall\n", hex.EncodeToString(sum[:]), access.Viewer)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return token
}
