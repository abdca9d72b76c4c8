package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/simulate"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/sources/worktree"
)

// podsListed is up to how many Pods are named; beyond, they are counted.
const podsListed = 200

type simulateOptions struct {
	nodes, zones    int
	cpu, memory     string
	pods            int64
	quiet, timeout  time.Duration
	output          string
	targetNamespace string
	keys            ageKeys
}

func simulateCommand() *cobra.Command {
	var o simulateOptions
	cmd := &cobra.Command{
		Use:   "simulate [DIR]",
		Short: "Try a working tree on nodes that do not exist",
		Long: `Compile a working tree and run it with the real engine on simulated nodes, which
take Pods to Ready without running them. It prints where each Pod lands, and
which fit nowhere and why. No cluster is needed, and nothing is changed. Encrypted
files are opened with --age-key-file; without it other values take the place of
those that are encrypted, and the objects of a file that age has encrypted are
not there.

Exit code: 0 when all Pods fit and all is healthy, 1 when not.`,
		Example: `  berth simulate ./deploy --nodes 3 --cpu 4 --memory 8Gi
  berth simulate ./deploy --nodes 6 --zones 3
  berth simulate ./deploy -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), dirArg(args), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 3, "how many nodes there are")
	f.IntVar(&o.zones, "zones", 1, "how many zones they are in (label topology.kubernetes.io/zone)")
	f.StringVar(&o.cpu, "cpu", "4", "CPU of each node")
	f.StringVar(&o.memory, "memory", "8Gi", "memory of each node")
	f.Int64Var(&o.pods, "pods", 110, "how many Pods each node takes")
	f.StringVar(&o.targetNamespace, "target-namespace", "default", "namespace of objects without one")
	f.DurationVar(&o.quiet, "quiet", time.Second, "it is over when nothing has happened for so long")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "it ends after this time anyway")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	o.keys.register(f)
	return cmd
}

// options are what the simulation is made of, but for the objects.
func (o simulateOptions) options() (simulate.Options, error) {
	out := simulate.Options{
		TargetNamespace: o.targetNamespace, Nodes: o.nodes, Zones: o.zones, Pods: o.pods, Quiet: o.quiet, Timeout: o.timeout,
		Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler),
	}
	if o.nodes < 0 || o.zones < 1 || o.pods < 0 || o.quiet < 10*time.Millisecond {
		return out, errors.New("--nodes and --pods must not be negative, --zones must be 1 or more and --quiet 10ms or more")
	}
	var err error
	if out.CPU, err = resource.ParseQuantity(o.cpu); err != nil {
		return out, fmt.Errorf("--cpu %q: %w", o.cpu, err)
	}
	if out.Memory, err = resource.ParseQuantity(o.memory); err != nil {
		return out, fmt.Errorf("--memory %q: %w", o.memory, err)
	}
	return out, nil
}

func (o simulateOptions) run(ctx context.Context, dir string, stdout, stderr io.Writer) error {
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("-o %q is not text or json", o.output)
	}
	options, err := o.options()
	if err != nil {
		return err
	}
	decryption, err := o.keys.decryption()
	if err != nil {
		return err
	}
	rev, path, err := worktree.Open(ctx, dir)
	if err != nil {
		return err
	}
	compiler, err := cue.New()
	if err != nil {
		return err
	}
	options.Set, err = (&manifests{compiler: compiler, decryption: &decryption}).Compile(ctx, rev, sync.CompileOptions{
		Source: "simulation", Path: path, TargetNamespace: o.targetNamespace, Kinds: sync.Kinds(),
	})
	if err != nil {
		return err
	}
	failed := func(list []v1alpha1.Diagnostic) error {
		newExcerpts(rev.Tree).print(ctx, stderr, list)
		return fmt.Errorf("%s in %s", errorCount(list), dir)
	}
	if v1alpha1.HasErrors(options.Set.Diagnostics) {
		return failed(options.Set.Diagnostics)
	}
	newExcerpts(rev.Tree).print(ctx, stderr, options.Set.Diagnostics)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // a large cluster is to fit into a small machine, and may take longer
	}
	result, err := simulate.Run(ctx, options)
	var refused *simulate.RefusedError
	if errors.As(err, &refused) {
		return failed(refused.Diagnostics)
	}
	if err != nil {
		return err
	}
	if o.output == "json" {
		err = printJSON(stdout, result)
	} else {
		err = printSimulation(stdout, options, result)
	}
	if err == nil && (len(result.Waiting) > 0 || result.Unhealthy != "" || result.Late) {
		return exitErrors
	}
	return err
}

func printSimulation(w io.Writer, o simulate.Options, r simulate.Result) error {
	var b strings.Builder
	total := 0
	for _, n := range r.Nodes {
		total += len(n.Pods) + len(n.Completed)
	}
	for _, n := range r.Nodes {
		fmt.Fprintf(&b, "%s  %s  cpu %s of %s  memory %s of %s\n", n.Name, countOf(len(n.Pods), "pod"),
			resource.NewMilliQuantity(n.CPU, resource.DecimalSI), &o.CPU, resource.NewQuantity(n.Memory, resource.BinarySI), &o.Memory)
		if total > podsListed {
			continue
		}
		for _, p := range n.Pods {
			fmt.Fprintf(&b, "  %s\n", p)
		}
		for _, p := range n.Completed {
			fmt.Fprintf(&b, "  %s (completed)\n", p)
		}
	}
	if len(r.Waiting) > 0 {
		fmt.Fprintf(&b, "%s no node:\n", countOf(len(r.Waiting), "pod")+map[bool]string{true: " has", false: " have"}[len(r.Waiting) == 1])
		waiting := r.Waiting[:min(len(r.Waiting), podsListed)]
		for _, p := range waiting {
			fmt.Fprintf(&b, "  %s: %s\n", p.Pod, p.Why)
		}
		if more := len(r.Waiting) - len(waiting); more > 0 {
			fmt.Fprintf(&b, "  and %d more\n", more)
		}
	}
	switch {
	case r.Late:
		fmt.Fprintf(&b, "not at rest after %v: %s\n", o.Timeout, r.Unhealthy)
	case r.Unhealthy != "":
		fmt.Fprintf(&b, "not healthy: %s\n", r.Unhealthy)
	default:
		fmt.Fprintf(&b, "all %s fit and all is healthy\n", countOf(total, "pod"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
