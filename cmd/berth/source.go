package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"berth.dev/berth/api/v1alpha1"
)

// updateAttempts is how often a Source that was changed in between is read anew.
const updateAttempts = 5

// onSource makes a command that does something to one Source.
func onSource(use, short, long, example string, do func(context.Context, *remote, *v1alpha1.Source, io.Writer) error) *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use: use + " SOURCE", Short: short, Long: long, Example: example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, s, err := c.source(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return do(cmd.Context(), r, s, cmd.OutOrStdout())
		},
	}
	c.register(cmd.Flags())
	return cmd
}

// source opens the server and reads a Source.
func (c *connection) source(ctx context.Context, name string) (*remote, *v1alpha1.Source, error) {
	r, err := c.open()
	if err != nil {
		return nil, nil, err
	}
	var s v1alpha1.Source
	if err := r.Get(ctx, types.NamespacedName{Name: name}, &s); err != nil {
		return nil, nil, err
	}
	return r, &s, nil
}

// change updates a Source until nobody was faster.
func change(ctx context.Context, r *remote, s *v1alpha1.Source, edit func(*v1alpha1.Source)) error {
	for range updateAttempts {
		edit(s)
		err := r.Update(ctx, s)
		if !apierrors.IsConflict(err) {
			return err
		}
		if err := r.Get(ctx, types.NamespacedName{Name: s.Name}, s); err != nil {
			return err
		}
	}
	return fmt.Errorf("the Source %s keeps changing; try again", s.Name)
}

func annotate(s *v1alpha1.Source, key, value string) {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[key] = value
}

func syncCommand() *cobra.Command {
	return onSource("sync", "Look at a Source's repository now, without waiting for the next poll", "",
		`  berth sync shop
  berth sync shop && berth status shop --watch`,
		func(ctx context.Context, r *remote, s *v1alpha1.Source, out io.Writer) error {
			if s.Suspended() {
				return fmt.Errorf("the Source %s is suspended; berth resume %s first", s.Name, s.Name)
			}
			err := change(ctx, r, s, func(s *v1alpha1.Source) {
				annotate(s, v1alpha1.AnnotationSync, time.Now().UTC().Format(time.RFC3339Nano))
			})
			if err == nil {
				fmt.Fprintf(out, "asked; follow it with: berth status %s --watch\n", s.Name)
			}
			return err
		})
}

func suspendCommand() *cobra.Command {
	var reason string
	cmd := onSource("suspend", "Stop fetching and applying; what runs goes on", "",
		`  berth suspend shop --reason "the sale is on, no changes until Monday"
  berth resume shop`,
		func(ctx context.Context, r *remote, s *v1alpha1.Source, out io.Writer) error {
			if s.Suspended() {
				fmt.Fprintf(out, "suspended already %s\n", s.Annotations[v1alpha1.AnnotationSuspended])
				return nil
			}
			who, err := r.whoami(ctx)
			if err != nil {
				return err
			}
			words := fmt.Sprintf("by %s since %s", who, time.Now().UTC().Format("2006-01-02 15:04 MST"))
			if reason != "" {
				words += ": " + reason
			}
			err = change(ctx, r, s, func(s *v1alpha1.Source) {
				annotate(s, v1alpha1.AnnotationSuspended, words)
			})
			if err == nil {
				fmt.Fprintf(out, "suspended; to go on: berth resume %s\n", s.Name)
			}
			return err
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who ask")
	return cmd
}

func resumeCommand() *cobra.Command {
	return onSource("resume", "Go on with a Source that was suspended", "", `  berth resume shop`,
		func(ctx context.Context, r *remote, s *v1alpha1.Source, out io.Writer) error {
			if !s.Suspended() {
				fmt.Fprintln(out, "it is not suspended")
				return nil
			}
			err := change(ctx, r, s, func(s *v1alpha1.Source) {
				s.Spec.Suspend = false
				delete(s.Annotations, v1alpha1.AnnotationSuspended)
			})
			if err == nil {
				fmt.Fprintf(out, "resumed; follow it with: berth status %s --watch\n", s.Name)
			}
			return err
		})
}

func approveCommand() *cobra.Command {
	var commit string
	cmd := onSource("approve", "Let a commit go ahead that is held, or waits for its sync window",
		`Let a commit go ahead that deletes more than spec.maxPrune of its Source allows,
everything, or a Namespace with what others keep in it. The approval is for the
one commit: another one that deletes as much waits again.`,
		`  berth status shop          says what would be deleted
  berth approve shop
  berth approve shop --commit 4f2a91c07b`,
		func(ctx context.Context, r *remote, s *v1alpha1.Source, out io.Writer) error {
			if s.Status.Observed == nil {
				return fmt.Errorf("the Source %s has no commit yet", s.Name)
			}
			id := s.Status.Observed.ID
			if b := s.Status.RolledBack; b != nil {
				id = b.To
			}
			if !strings.HasPrefix(id, commit) {
				return fmt.Errorf("the newest commit of %s is %s, not %s; look at it again before you approve", s.Name, shortID(id), commit)
			}
			held := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionApplied)
			late := held != nil && held.Reason == v1alpha1.ReasonOutsideWindow
			if held == nil || held.Reason != v1alpha1.ReasonPruneHeld && !late {
				fmt.Fprintf(out, "commit %s is not held; nothing was changed\n", shortID(id))
				return nil
			}
			value := id
			if late {
				value += v1alpha1.ApproveNow
			}
			err := change(ctx, r, s, func(s *v1alpha1.Source) { annotate(s, v1alpha1.AnnotationApprove, value) })
			if err == nil && late {
				fmt.Fprintf(out, "approved %s, which does not wait for its sync window\n", shortID(id))
			} else if err == nil {
				fmt.Fprintf(out, "approved %s, which %s\n", shortID(id), strings.SplitN(held.Message, ";", 2)[0])
			}
			return err
		})
	cmd.Flags().StringVar(&commit, "commit", "", "approve only if this is the newest commit")
	return cmd
}

func historyCommand() *cobra.Command {
	var output string
	cmd := onSource("history", "Show the commits that were applied", "", `  berth history shop
  berth history shop -o json`,
		func(_ context.Context, _ *remote, s *v1alpha1.Source, out io.Writer) error {
			if output == "json" {
				return printJSON(out, append([]v1alpha1.AppliedCommit{}, s.Status.History...))
			}
			return printHistory(out, s, time.Now())
		})
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printHistory(out io.Writer, s *v1alpha1.Source, now time.Time) error {
	if len(s.Status.History) == 0 {
		fmt.Fprintln(out, "nothing was applied yet")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMMIT\tAPPLIED\tHEALTHY\tKEPT\tCHANGES\tSUBJECT\tAUTHOR")
	for i, h := range s.Status.History {
		healthy := "not seen" // a newer commit came first
		switch {
		case h.Healthy != nil:
			healthy = "after " + duration.HumanDuration(h.Healthy.Sub(h.Applied.Time))
		case h.Failed != "":
			healthy = "no: " + h.Failed
		case i == 0:
			healthy = "not yet"
		}
		kept := "no"
		if h.Kept {
			kept = "yes"
		}
		fmt.Fprintf(w, "%s\t%s ago\t%s\t%s\t%s\t%s\t%s\n", shortID(h.ID), duration.HumanDuration(now.Sub(h.Applied.Time)), healthy, kept, h.Changes, h.Subject, h.Author)
	}
	return w.Flush()
}

// whoami is the name that the server knows the caller by.
func (r *remote) whoami(ctx context.Context) (string, error) {
	response, err := r.call(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews",
		strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`), http.Header{"Content-Type": {"application/json"}})
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var review authenticationv1.SelfSubjectReview
	if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
		return "", fmt.Errorf("ask who one is: %w", err)
	}
	return review.Status.UserInfo.Username, nil
}

func rollbackCommand() *cobra.Command {
	var undo bool
	var c connection
	cmd := &cobra.Command{
		Use:   "rollback SOURCE [COMMIT]",
		Short: "Go back to a commit that was applied before",
		Long: `Go back to a commit that was applied before; without COMMIT, to the last healthy
one before the present. Its objects are in the cluster's store: the repository is
not needed. The newest commit is not applied again until there is a newer one, or
until --undo.

berth history SOURCE shows the commits, and which of them are kept.`,
		Example: `  berth rollback shop
  berth rollback shop 4f2a91c07b
  berth rollback shop --undo`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, s, err := c.source(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if undo {
				return undoRollback(cmd.Context(), r, s, cmd.OutOrStdout())
			}
			return rollback(cmd.Context(), r, s, append(args, "")[1], cmd.OutOrStdout())
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().BoolVar(&undo, "undo", false, "apply the newest commit again")
	return cmd
}

func rollback(ctx context.Context, r *remote, s *v1alpha1.Source, commit string, out io.Writer) error {
	if s.Suspended() {
		return fmt.Errorf("the Source %s is suspended; berth resume %s first", s.Name, s.Name)
	}
	if s.Status.Observed == nil || s.Status.Applied == nil {
		return fmt.Errorf("nothing of the Source %s was applied yet", s.Name)
	}
	to, err := backTo(s, commit)
	if err != nil {
		return err
	}
	newest := s.Status.Observed.ID
	if to.ID == newest {
		return fmt.Errorf("commit %s is the newest one; there is nothing to go back from", shortID(to.ID))
	}
	err = change(ctx, r, s, func(s *v1alpha1.Source) {
		annotate(s, v1alpha1.AnnotationRollback, to.ID+v1alpha1.RollbackSeparator+newest)
	})
	if err == nil {
		fmt.Fprintf(out, "going back to %s (%s) instead of %s; follow it with: berth status %s --watch\n", shortID(to.ID), to.Subject, shortID(newest), s.Name)
	}
	return err
}

// backTo finds the commit to go back to in the history of a Source.
func backTo(s *v1alpha1.Source, commit string) (*v1alpha1.AppliedCommit, error) {
	found := map[string]*v1alpha1.AppliedCommit{}
	for i := range s.Status.History {
		h := &s.Status.History[i]
		switch {
		case commit == "" && h.Healthy != nil && h.Kept && h.ID != s.Status.Applied.ID:
			return h, nil
		case commit != "" && strings.HasPrefix(h.ID, commit):
			found[h.ID] = h
		}
	}
	switch {
	case commit == "":
		return nil, fmt.Errorf("no earlier commit of %s was healthy and is kept; name one: berth history %s shows them", s.Name, s.Name)
	case len(found) == 0:
		return nil, fmt.Errorf("commit %s is not in the history of %s; berth history %s shows what is", commit, s.Name, s.Name)
	case len(found) > 1:
		return nil, fmt.Errorf("several commits of %s begin with %s; name more of it", s.Name, commit)
	}
	for _, h := range found {
		if !h.Kept {
			return nil, fmt.Errorf("the objects of commit %s are not kept any more; revert in Git instead", shortID(h.ID))
		}
		return h, nil
	}
	return nil, nil
}

func undoRollback(ctx context.Context, r *remote, s *v1alpha1.Source, out io.Writer) error {
	if s.Annotations[v1alpha1.AnnotationRollback] == "" {
		if b := s.Status.RolledBack; b != nil {
			return fmt.Errorf("commit %s was rolled back because it was %s; push a newer commit", shortID(b.From), b.Reason)
		}
		fmt.Fprintln(out, "it was not rolled back")
		return nil
	}
	err := change(ctx, r, s, func(s *v1alpha1.Source) { delete(s.Annotations, v1alpha1.AnnotationRollback) })
	if err == nil {
		fmt.Fprintf(out, "the newest commit is applied again; follow it with: berth status %s --watch\n", s.Name)
	}
	return err
}
