package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"berth.dev/berth/cue/schema"
)

func cueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cue",
		Short:   "Help with repositories written in CUE",
		Example: `  berth cue vendor ./deploy`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "vendor [DIR]",
		Short: "Write the schema into a repository, for editors and cue vet",
		Long: `Write the definitions that Berth compiles with into the CUE module that DIR lies
in, as cue.mod/pkg/berth.dev/schema, so that editors and "cue vet" know them. If
DIR lies in no module, its repository becomes one.

Berth does not need the copy: it always compiles with its own, and says so when
the two differ. Run this again after an upgrade.`,
		Example: `  berth cue vendor ./deploy
  cd deploy && cue vet -c ./...`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return vendor(dirArg(args), cmd.OutOrStdout()) },
	})
	return cmd
}

// vendor writes the schema into the module that dir lies in.
func vendor(dir string, stdout io.Writer) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("vendor the schema: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("vendor the schema: %s is a file; name the folder", dir)
	}
	root, err := moduleRoot(dir)
	if err != nil {
		return err
	}
	files, err := schema.Files()
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	into := filepath.Join(root, "cue.mod", "pkg", filepath.FromSlash(schema.ImportPath))
	if err := os.MkdirAll(into, 0o755); err != nil {
		return fmt.Errorf("vendor the schema: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(into, "*.cue"))
	if err != nil {
		return fmt.Errorf("vendor the schema: %w", err)
	}
	for _, name := range old {
		if files[filepath.Base(name)] == nil { // of another version
			if err := os.Remove(name); err != nil {
				return fmt.Errorf("vendor the schema: %w", err)
			}
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(into, name), content, 0o644); err != nil {
			return fmt.Errorf("vendor the schema: %w", err)
		}
	}
	fmt.Fprintf(stdout, "wrote %d files to %s\n", len(files), into)
	return nil
}

// moduleRoot is the CUE module that dir lies in: the nearest folder above it
// with a cue.mod, within its repository. Without one, the repository is made a
// module, or dir if it lies in none.
func moduleRoot(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the CUE module of %s: %w", dir, err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "cue.mod", "module.cue")); err == nil {
			return at, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the CUE module of %s: %w", dir, err)
		}
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			abs = at
			break
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	if err := os.MkdirAll(filepath.Join(abs, "cue.mod"), 0o755); err != nil {
		return "", fmt.Errorf("make a CUE module: %w", err)
	}
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(abs)), "-")
	module := fmt.Sprintf("module: \"%s.example\"\nlanguage: version: %q\n", strings.Trim(name, "-"), schema.Language)
	if err := os.WriteFile(filepath.Join(abs, "cue.mod", "module.cue"), []byte(module), 0o644); err != nil {
		return "", fmt.Errorf("make a CUE module: %w", err)
	}
	return abs, nil
}
