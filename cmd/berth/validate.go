package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/archive"
	"berth.dev/berth/sources/worktree"
)

// Exit codes of validate and plan.
const (
	exitErrors  = exitCode(1)
	exitChanges = exitCode(2)
)

func validateCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Compile a working tree; no cluster is needed",
		Long: `Compile the manifests of a working tree as a push would, and print every error
with its place. No cluster is needed.

Exit code: 0 when it is valid, 1 when it is not.`,
		Example: `  berth validate
  berth validate ./deploy
  berth validate -o json ./deploy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("-o %q is not text or json", output)
			}
			return validate(cmd.Context(), dirArg(args), output, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func dirArg(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return "."
}

func validate(ctx context.Context, dir, output string, stdout, stderr io.Writer) error {
	rev, path, err := worktree.Open(ctx, dir)
	if err != nil {
		return err
	}
	compiler, err := cue.New()
	if err != nil {
		return err
	}
	set, err := (&manifests{compiler}).Compile(ctx, rev, sync.CompileOptions{
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

func planCommand() *cobra.Command {
	var c connection
	var output, source string
	cmd := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Show what a working tree would change in the cluster",
		Long: `Compile a working tree and compare it with the running cluster, exactly as a
push would. Nothing is changed.

Exit code: 0 when nothing would change, 2 when something would, 1 on errors.`,
		Example: `  berth plan
  berth plan ./deploy --source shop
  berth plan -o markdown ./deploy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" && output != "markdown" {
				return fmt.Errorf("-o %q is not text, json or markdown", output)
			}
			r, err := c.open()
			if err != nil {
				return err
			}
			return plan(cmd.Context(), r, dirArg(args), source, output, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json or markdown")
	cmd.Flags().StringVar(&source, "source", "", "the Source to compare with (default: the one that a remote of the repository names, else the name of its folder)")
	return cmd
}

func plan(ctx context.Context, r *remote, dir, source, output string, stdout, stderr io.Writer) error {
	rev, path, err := worktree.Open(ctx, dir)
	if err != nil {
		return err
	}
	if source == "" {
		if source, err = repositoryName(dir); err != nil {
			return err
		}
	}
	var body bytes.Buffer
	if err := archive.Write(ctx, &body, rev); err != nil {
		return err
	}
	q := url.Values{"source": {source}, "path": {path}}
	var answer planAnswer
	if err := r.post(ctx, "/berth/v1/plan?"+q.Encode(), &body, &answer); err != nil {
		return err
	}
	newExcerpts(rev.Tree).print(ctx, stderr, answer.Diagnostics)
	switch output {
	case "json":
		err = printJSON(stdout, answer)
	case "markdown":
		_, err = io.WriteString(stdout, answer.Markdown)
	default:
		_, err = io.WriteString(stdout, answer.Text)
	}
	if err != nil {
		return err
	}
	if v1alpha1.HasErrors(answer.Diagnostics) {
		return fmt.Errorf("%s in %s", errorCount(answer.Diagnostics), dir)
	}
	if answer.Held != "" {
		fmt.Fprintf(stderr, "it would be held: it %s\n", answer.Held)
	}
	if answer.Changes {
		return exitChanges
	}
	return nil
}

// repositoryName is the Source that the repository of dir is pushed to, as its
// remotes say, or else the name of its folder.
func repositoryName(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := abs; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return cmp.Or(pushedTo(filepath.Join(at, ".git", "config")), strings.ToLower(filepath.Base(at))), nil
		}
		if at == filepath.Dir(at) {
			return strings.ToLower(filepath.Base(abs)), nil
		}
	}
}

// pushedTo finds a remote that is a built-in endpoint in git's configuration.
func pushedTo(config string) string {
	b, err := os.ReadFile(config)
	if err != nil {
		return ""
	}
	found := regexp.MustCompile(`(?m)^\s*url\s*=\s*\S+/git/([a-z0-9-]+)\.git/?\s*$`).FindSubmatch(b)
	if found == nil {
		return ""
	}
	return string(found[1])
}

// post sends a body to one of our own endpoints and decodes the answer.
func (r *remote) post(ctx context.Context, path string, body io.Reader, into any) error {
	response, err := r.call(ctx, http.MethodPost, path, body, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return json.NewDecoder(response.Body).Decode(into)
}

// call sends a request to one of our own endpoints. Without an error there is
// an answer, to be closed.
func (r *remote) call(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, method, r.URL+path, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(q.Header, header)
	if r.Token != "" {
		q.Header.Set("Authorization", "Bearer "+r.Token)
	}
	if q.Header.Get("Content-Type") == "" {
		q.Header.Set("Content-Type", "application/octet-stream")
	}
	response, err := r.Client.Do(q)
	if err != nil {
		return nil, client.Unreachable(err)
	}
	if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusCreated {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<20)) // what can be read is shown
	return nil, fmt.Errorf("the server refused: %s", strings.TrimSpace(string(text)))
}
