package main

import (
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"berth.dev/berth/cue"
	"berth.dev/berth/cue/worker"
)

const (
	// compileCommand is what this program is called with to evaluate for another one.
	compileCommand = "compile-worker"
	// compileIdle is how long a process that evaluates is kept for the next commit.
	compileIdle = 2 * time.Minute
)

func compileWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    compileCommand,
		Short:  "Evaluate CUE for the server, which starts this by itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return cue.Work(os.Stdin, os.Stdout) },
	}
}

// newCompiler makes the compiler of a server: what is pushed is hostile.
func newCompiler(log *slog.Logger) (*cue.Compiler, error) {
	return cue.NewApart(worker.New(worker.Options{
		Command: func() *exec.Cmd { return worker.Self(compileCommand) },
		Max:     runtime.GOMAXPROCS(0), Idle: compileIdle, Log: log,
	}))
}

// expectPush readies the compiler as soon as somebody begins to push.
func expectPush(c *cue.Compiler, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("service") == "git-receive-pack" {
			go c.Warm()
		}
		h.ServeHTTP(w, r)
	})
}
