package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/worktree"
)

// Exit codes of validate and plan.
const (
	exitErrors  = exitCode(1)
	exitChanges = exitCode(2)
)

func validateCommand() *cobra.Command {
	var output string
	var keys ageKeys
	cmd := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Compile a working tree; no cluster is needed",
		Long: `Compile the manifests of a working tree as a push would, and print every error
with its place. No cluster is needed. Encrypted files are opened with
--age-key-file; without it they are skipped, and what needs them is not checked.

Exit code: 0 when it is valid, 1 when it is not.`,
		Example: `  berth validate
  berth validate ./deploy
  berth validate -o json ./deploy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("-o %q is not text or json", output)
			}
			decryption, err := keys.decryption()
			if err != nil {
				return err
			}
			return validate(cmd.Context(), dirArg(args), output, decryption, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	keys.register(cmd.Flags())
	return cmd
}

func dirArg(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "."
}

func validate(ctx context.Context, dir, output string, decryption cue.Decryption, stdout, stderr io.Writer) error {
	rev, path, err := worktree.Open(ctx, dir)
	if err != nil {
		return err
	}
	compiler, err := cue.New()
	if err != nil {
		return err
	}
	set, err := (&manifests{compiler: compiler, decryption: &decryption}).Compile(ctx, rev, sync.CompileOptions{
		Source: "validate", Path: path, TargetNamespace: "default", Kinds: sync.Kinds(),
	})
	if err != nil {
		return err
	}
	for _, r := range set.Open {
		set.Diagnostics = append(set.Diagnostics, r.Missing("in this repository"))
	}
	slices.SortStableFunc(set.Diagnostics, v1alpha1.CompareDiagnostics)
	failed := v1alpha1.HasErrors(set.Diagnostics)
	if output == "json" {
		answer := map[string]any{"valid": !failed, "objects": len(set.Manifests), "diagnostics": append([]v1alpha1.Diagnostic{}, set.Diagnostics...)}
		if err := printJSON(stdout, answer); err != nil {
			return err
		}
	} else {
		newExcerpts(rev.Tree).print(ctx, stderr, set.Diagnostics)
	}
	switch {
	case failed && output == "text":
		return fmt.Errorf("%s in %s", errorCount(set.Diagnostics), dir)
	case failed:
		return exitErrors
	case output == "text":
		fmt.Fprintf(stdout, "valid: %d objects\n", len(set.Manifests))
	}
	return nil
}
