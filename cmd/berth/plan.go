package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/archive"
	"berth.dev/berth/sources/worktree"
)

// planOptions are the flags of berth plan.
type planOptions struct {
	dir     string
	source  string
	output  string
	color   string
	verbose bool
	// against and commit are the two commits that are compared without a cluster.
	against, commit string
	keys            ageKeys
	stdout, stderr  io.Writer
}

func planCommand() *cobra.Command {
	var c connection
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Show what a working tree would change in the cluster",
		Long: `Compile a working tree and compare it with the running cluster, exactly as a
push would. Nothing is changed. With --against, compare it with a commit of the
same repository instead: no cluster is asked.

Encrypted files are opened by the server, with the keys that spec.decryption of
the Source names. With --against they are opened with --age-key-file; without it,
whether an encrypted value has changed is told from its ciphertext.

Exit code: 0 when nothing would change, 2 when something would, 1 on errors.`,
		Example: `  berth plan
  berth plan ./deploy --source shop
  berth plan -o markdown ./deploy
  berth plan --against main ./deploy
  berth plan --against v1.4 --commit v1.5 ./deploy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir, o.stdout, o.stderr = dirArg(args), cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := o.check(cmd.Flags().Changed("against")); err != nil {
				return err
			}
			if o.keys.file != "" && !cmd.Flags().Changed("against") {
				return errors.New("--age-key-file needs --against: with a cluster, the server opens encrypted files with the Secret that spec.decryption of the Source names")
			}
			if cmd.Flags().Changed("against") {
				return planAgainst(cmd.Context(), o)
			}
			r, err := c.open()
			if err != nil {
				return err
			}
			return planTree(cmd.Context(), r, o)
		},
	}
	c.register(cmd.Flags())
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "text", "text, json or markdown")
	f.StringVar(&o.source, "source", "", "the Source to compare with (default: the one that a remote of the repository names, else the name of its folder)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show every object, field and value, however many there are")
	f.StringVar(&o.color, "color", colorAuto, "auto, always or never; auto is for terminals, unless NO_COLOR is set")
	f.StringVar(&o.against, "against", "", "a commit of the same repository to compare with, such as main or HEAD~1; no cluster is asked")
	o.keys.register(f)
	f.StringVar(&o.commit, "commit", "", "with --against: the commit that is compared, instead of the working tree")
	return cmd
}

func (o planOptions) check(against bool) error {
	switch {
	case o.output != "text" && o.output != "json" && o.output != "markdown":
		return fmt.Errorf("-o %q is not text, json or markdown", o.output)
	case o.color != colorAuto && o.color != colorAlways && o.color != colorNever:
		return fmt.Errorf("--color %q is not auto, always or never", o.color)
	case o.commit != "" && !against:
		return errors.New("--commit needs --against: with a cluster it is the working tree that is compared")
	case against && o.against == "":
		return errors.New("--against names no commit; name one, such as main or HEAD~1")
	}
	return nil
}

func planTree(ctx context.Context, r *remote, o planOptions) error {
	rev, path, err := worktree.Open(ctx, o.dir)
	if err != nil {
		return err
	}
	if o.source == "" {
		if o.source, err = repositoryName(o.dir); err != nil {
			return err
		}
	}
	var body bytes.Buffer
	if err := archive.Write(ctx, &body, rev); err != nil {
		return err
	}
	q := url.Values{"source": {o.source}, "path": {path}}
	if o.verbose {
		q.Set("verbose", "true")
	}
	var answer planAnswer
	if err := r.post(ctx, "/berth/v1/plan?"+q.Encode(), &body, &answer); err != nil {
		return err
	}
	newExcerpts(rev.Tree).print(ctx, o.stderr, answer.Diagnostics)
	return o.show(answer)
}

// show prints an answer and says with the exit code whether something changes.
func (o planOptions) show(answer planAnswer) (err error) {
	switch o.output {
	case "json":
		err = printJSON(o.stdout, answer)
	case "markdown":
		_, err = io.WriteString(o.stdout, answer.Markdown)
	default:
		text := answer.Text
		if colored(o.color, o.stdout) {
			text = paint(text)
		}
		_, err = io.WriteString(o.stdout, text)
	}
	if err != nil {
		return err
	}
	if v1alpha1.HasErrors(answer.Diagnostics) {
		return fmt.Errorf("%s in %s", errorCount(answer.Diagnostics), o.dir)
	}
	if answer.Held != "" {
		fmt.Fprintf(o.stderr, "it would be held: it %s\n", answer.Held)
	}
	if answer.Later != "" {
		fmt.Fprintf(o.stderr, "later: it %s\n", answer.Later)
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
