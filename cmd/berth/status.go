package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

func statusCommand() *cobra.Command {
	var c connection
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [SOURCE]",
		Short: "Show how the Sources are doing",
		Example: `  berth status
  berth status shop
  berth status shop --watch     until it is Ready, or has failed
  berth status -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("-o %q is not text or json", output)
			}
			r, err := c.open()
			if err != nil {
				return err
			}
			if watch {
				return watchStatus(cmd.Context(), r, cmd.OutOrStdout(), args)
			}
			return showStatus(cmd.Context(), r, cmd.OutOrStdout(), args, output)
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "follow changes; with a SOURCE, end when it is Ready (exit 0) or has failed (exit 1)")
	return cmd
}

func showStatus(ctx context.Context, c client.Client, out io.Writer, args []string, output string) error {
	if len(args) == 1 {
		var s v1alpha1.Source
		if err := c.Get(ctx, types.NamespacedName{Name: args[0]}, &s); err != nil {
			return err
		}
		if output == "json" {
			return printJSON(out, &s)
		}
		printSource(out, &s)
		return nil
	}
	var all v1alpha1.SourceList
	if err := c.List(ctx, &all, client.ListOptions{}); err != nil {
		return err
	}
	if output == "json" {
		return printJSON(out, &all)
	}
	several := printLeader(ctx, c, out)
	if len(all.Items) == 0 && several {
		fmt.Fprintln(out, "no Sources yet: apply a Source with the url of a repository")
		return nil
	}
	if len(all.Items) == 0 {
		fmt.Fprintln(out, "no Sources yet: push a repository to /git/NAME.git")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "SOURCE\tREADY\tREASON\tCOMMIT\tSUBJECT\tAGE\tTIME TO READY")
	for i := range all.Items {
		s := &all.Items[i]
		ready, reason := "Unknown", ""
		if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); c != nil {
			ready, reason = string(c.Status), c.Reason
		}
		id, subject, age := "-", "-", "-"
		if a := s.Status.Applied; a != nil {
			id, subject, age = shortID(a.ID), a.Subject, duration.HumanDuration(time.Since(a.Time.Time))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, ready, reason, id, subject, age, timeToReady(s))
	}
	return w.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func shortID(id string) string { return id[:min(10, len(id))] }

// timeToReady is from the push, or the fetch, until everything was ready.
func timeToReady(s *v1alpha1.Source) string {
	t := s.Status.Timeline
	i := slices.IndexFunc(t, func(st v1alpha1.Stage) bool { return st.Name == v1alpha1.StageReady })
	if i < 0 {
		return "-"
	}
	return t[i].Time.Sub(t[0].Time.Time).Round(time.Millisecond).String()
}

func printSource(out io.Writer, s *v1alpha1.Source) {
	fmt.Fprintf(out, "Source    %s\n", s.Name)
	from := s.Spec.URL
	if from == "" {
		from = "the built-in endpoint /git/" + s.Name + ".git"
	}
	fmt.Fprintf(out, "From      %s, %s\n", from, refWords(s.Spec.Ref))
	for _, c := range []struct {
		title  string
		commit *v1alpha1.Commit
	}{{"Observed", s.Status.Observed}, {"Applied", s.Status.Applied}, {"Healthy", s.Status.Healthy}} {
		if c.commit != nil {
			fmt.Fprintf(out, "%-9s %s  %s (%s)\n", c.title, shortID(c.commit.ID), c.commit.Subject, c.commit.Author)
		}
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range s.Status.Conditions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	w.Flush()
	if len(s.Status.Timeline) > 0 {
		fmt.Fprintln(out)
		w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		first := s.Status.Timeline[0].Time.Time
		for _, st := range s.Status.Timeline {
			fmt.Fprintf(w, "%s\t%s\t+%s\t%s\n", st.Name, st.Time.Local().Format("15:04:05.000"), st.Time.Sub(first).Round(time.Millisecond), st.Message)
		}
		w.Flush()
	}
	if len(s.Status.Diagnostics) > 0 {
		fmt.Fprintln(out)
		for _, d := range s.Status.Diagnostics {
			fmt.Fprintln(out, d)
		}
	}
}

func refWords(r v1alpha1.Ref) string {
	switch {
	case r.Commit != "":
		return "commit " + shortID(r.Commit)
	case r.Tag != "":
		return "tag " + r.Tag
	}
	return "branch " + r.Branch
}

// watchStatus prints a line for each change.
func watchStatus(ctx context.Context, c client.Client, out io.Writer, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &statusFollower{out: out, last: map[string]string{}, end: cancel}
	if len(args) == 1 {
		f.only = args[0]
	}
	if err := client.Follow(ctx, c, &v1alpha1.SourceList{}, client.ListOptions{}, f); err != nil {
		return err
	}
	return f.err
}

// missing says that there is no such Source, and what makes one.
func missing(name string) error {
	return fmt.Errorf("there is no Source %s; a push to /git/%s.git makes it", name, name)
}

type statusFollower struct {
	out  io.Writer
	only string
	last map[string]string
	end  context.CancelFunc
	err  error
}

// Synced implements client.Follower.
func (f *statusFollower) Synced() {
	if f.only != "" && f.last[f.only] == "" {
		f.err = missing(f.only)
		f.end()
	}
}

// Gone implements client.Follower.
func (f *statusFollower) Gone(obj client.Object) {
	if f.only == "" || f.only == obj.GetName() {
		fmt.Fprintf(f.out, "%s  was removed\n", obj.GetName())
		if f.only != "" {
			f.err = missing(f.only)
			f.end()
		}
	}
}

// Set implements client.Follower.
func (f *statusFollower) Set(obj client.Object) {
	s := obj.(*v1alpha1.Source)
	if f.only != "" && s.Name != f.only {
		return
	}
	line := s.Name + "  " + progressWords(s)
	if f.last[s.Name] != line {
		f.last[s.Name] = line
		fmt.Fprintln(f.out, line)
	}
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady)
	if f.only == "" || c == nil {
		return
	}
	switch {
	case c.Status == metav1.ConditionTrue:
		f.end()
	case c.Reason != v1alpha1.ReasonProgressing && c.Reason != v1alpha1.ReasonDegraded:
		f.err = fmt.Errorf("%s: %s", c.Reason, c.Message)
		f.end()
	}
}

// progressWords is where a Source stands, in a line.
func progressWords(s *v1alpha1.Source) string {
	var parts []string
	if o := s.Status.Observed; o != nil {
		parts = append(parts, shortID(o.ID))
	}
	if n := len(s.Status.Timeline); n > 0 {
		parts = append(parts, s.Status.Timeline[n-1].Name)
	}
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		if c.Status == metav1.ConditionTrue {
			parts = append(parts, "Ready", "("+timeToReady(s)+")")
		} else {
			parts = append(parts, c.Reason+":", c.Message)
		}
	}
	if len(parts) == 0 {
		return "waits for its first commit"
	}
	return strings.Join(parts, " ")
}
