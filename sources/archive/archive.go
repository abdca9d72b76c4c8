// Package archive carries the manifests of a working tree over a connection, as
// a tar of the files that the compiler reads. What comes in is not trusted: it
// is bounded, and never touches the disk.
package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"

	"berth.dev/berth/api/revision"
)

// Bounds of an archive.
const (
	MaxBytes = 64 << 20
	MaxFiles = 20_000
	maxFile  = 4<<20 + 1
	// last is the name of the entry that ends an archive: a tar that is cut
	// short between two entries would read as a smaller one.
	last = ".end"
)

// carried reports whether the compiler reads such a file: a manifest, or one whose
// name stands in a kustomization, which may be any.
func carried(name string, kustomizations []byte) bool {
	switch path.Ext(name) {
	case ".cue", ".yaml", ".yml", ".json":
		return true
	}
	switch base := path.Base(name); base {
	case ".berthignore", "Kustomization":
		return true
	default:
		return bytes.Contains(kustomizations, []byte(base))
	}
}

// kustomizations are all kustomization files in one.
func kustomizations(ctx context.Context, t revision.Tree, files []revision.File) ([]byte, error) {
	var all []byte
	for _, f := range files {
		switch path.Base(f.Path) {
		case "kustomization.yaml", "kustomization.yml", "Kustomization":
		default:
			continue
		}
		if f.Kind != revision.Regular || f.Size >= maxFile {
			continue
		}
		content, err := t.Read(ctx, f.Path, maxFile)
		if err != nil {
			return nil, err
		}
		all = append(all, content...)
	}
	return all, nil
}

// Write writes the manifests of a revision. Symbolic links and submodules go
// along as names, and a file too large as its size, so that the receiver finds
// the same faults.
func Write(ctx context.Context, w io.Writer, rev revision.Revision) error {
	files, err := rev.Tree.Files(ctx)
	if err != nil {
		return fmt.Errorf("list the files: %w", err)
	}
	named, err := kustomizations(ctx, rev.Tree, files)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range files {
		if f.Kind == revision.Regular && !carried(f.Path, named) {
			continue
		}
		h := &tar.Header{Name: f.Path, Mode: 0o644, Format: tar.FormatPAX}
		var content []byte
		switch {
		case f.Kind == revision.Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, "-"
		case f.Kind == revision.Submodule:
			h.Typeflag = tar.TypeDir
		default:
			h.Typeflag = tar.TypeReg
			if f.Size < maxFile {
				if content, err = rev.Tree.Read(ctx, f.Path, maxFile); err != nil {
					return err
				}
			} else {
				content = make([]byte, maxFile)
			}
			h.Size = int64(len(content))
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		if _, err := tw.Write(content); err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
	}
	if err := tw.WriteHeader(&tar.Header{Name: last, Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return tw.Close()
}

// Read reads an archive of at most limit bytes; 0 means MaxBytes.
func Read(r io.Reader, limit int64) (revision.Revision, error) {
	if limit <= 0 {
		limit = MaxBytes
	}
	bounded := &io.LimitedReader{R: r, N: limit + 1}
	t := &memory{contents: map[string][]byte{}}
	tr := tar.NewReader(bounded)
	for {
		h, err := tr.Next()
		if err == nil && h.Name == last {
			break
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("it is cut short")
		}
		if err == nil {
			err = t.add(h, tr)
		}
		if bounded.N <= 0 {
			err = fmt.Errorf("more than %d MiB; deploy a smaller folder, or list files in .berthignore", limit>>20)
		}
		if err != nil {
			return revision.Revision{}, fmt.Errorf("read the archive: %w", err)
		}
	}
	sort.Slice(t.files, func(i, j int) bool { return t.files[i].Path < t.files[j].Path })
	if err := t.check(); err != nil {
		return revision.Revision{}, fmt.Errorf("read the archive: %w", err)
	}
	return revision.Revision{Subject: "working tree", Tree: t}, nil
}

type memory struct {
	files    []revision.File
	contents map[string][]byte
}

var _ revision.Tree = (*memory)(nil)

// check refuses what Write does not write.
func (m *memory) check() error {
	named, err := kustomizations(context.Background(), m, m.files)
	if err != nil {
		return err
	}
	for _, f := range m.files {
		if f.Kind == revision.Regular && !carried(f.Path, named) {
			return fmt.Errorf("%s does not belong into it", f.Path)
		}
	}
	return nil
}

func (m *memory) add(h *tar.Header, r io.Reader) error {
	name := strings.TrimSuffix(h.Name, "/")
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00") {
		return fmt.Errorf("%q is no path of a repository", h.Name)
	}
	if len(m.files) >= MaxFiles {
		return fmt.Errorf("more than %d files", MaxFiles)
	}
	if _, twice := m.contents[name]; twice {
		return fmt.Errorf("%s is in it twice", name)
	}
	f := revision.File{Path: name}
	var content []byte
	switch h.Typeflag {
	case tar.TypeSymlink:
		f.Kind = revision.Symlink
	case tar.TypeDir:
		f.Kind = revision.Submodule
	case tar.TypeReg:
		if h.Size > maxFile {
			return fmt.Errorf("%s does not belong into it", name)
		}
		var err error
		if content, err = io.ReadAll(io.LimitReader(r, maxFile)); err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		f.Hash, f.Size = hex.EncodeToString(sum[:]), int64(len(content))
	default:
		return fmt.Errorf("%s is neither a file nor a link", name)
	}
	m.contents[name] = content
	m.files = append(m.files, f)
	return nil
}

func (m *memory) Files(context.Context) ([]revision.File, error) {
	return append([]revision.File(nil), m.files...), nil
}

func (m *memory) Read(_ context.Context, name string, limit int64) ([]byte, error) {
	content, ok := m.contents[name]
	if !ok || content == nil {
		return nil, fmt.Errorf("read %s: no such file", name)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("read %s: the file has %d bytes; at most %d are read", name, len(content), limit)
	}
	return content, nil
}
