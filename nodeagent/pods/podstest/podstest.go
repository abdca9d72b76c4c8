// Package podstest has the contract that every pods.Runtime must pass, and a
// Fake that passes it without a kernel. It is for tests alone.
package podstest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth.dev/berth/nodeagent/pods"
)

// Setup is a Runtime to test, and containers that it can run.
type Setup struct {
	Runtime pods.Runtime
	// Sleeps is a container that runs until a signal ends it, with code 0 on
	// SIGTERM. Exits is one that ends by itself with code 3.
	Sleeps, Exits pods.Container
}

// Run tests a Runtime. The containers' ids, groups and files are set here.
func Run(t *testing.T, setup func(t *testing.T) Setup) {
	each := func(name string, f func(t *testing.T, s Setup)) {
		t.Run(name, func(t *testing.T) { f(t, prepare(t, setup(t))) })
	}
	each("an exit is waited for and stays known until Remove", func(t *testing.T, s Setup) {
		start(t, s.Runtime, s.Exits)
		for range 2 {
			if exit := wait(t, s.Runtime, s.Exits.ID); exit.Code != 3 || exit.OOM || time.Since(exit.At) > time.Minute {
				t.Errorf("exit %+v, want code 3", exit)
			}
		}
		if state := state(t, s.Runtime, s.Exits.ID); state != pods.Exited {
			t.Errorf("state %q", state)
		}
		remove(t, s.Runtime, s.Exits.ID)
		if _, err := s.Runtime.Wait(t.Context(), s.Exits.ID); !errors.Is(err, pods.ErrNotFound) {
			t.Errorf("Wait after Remove: %v, want ErrNotFound", err)
		}
	})
	each("a signal ends it, SIGKILL with 137", func(t *testing.T, s Setup) {
		start(t, s.Runtime, s.Sleeps)
		if state := state(t, s.Runtime, s.Sleeps.ID); state != pods.Running {
			t.Errorf("state %q", state)
		}
		if err := s.Runtime.Kill(t.Context(), s.Sleeps.ID, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		if exit := wait(t, s.Runtime, s.Sleeps.ID); exit.Code != 137 {
			t.Errorf("exit %+v, want 137", exit)
		}
		if err := s.Runtime.Kill(t.Context(), s.Sleeps.ID, "SIGTERM"); err != nil {
			t.Errorf("a signal to a container that has ended: %v", err)
		}
		remove(t, s.Runtime, s.Sleeps.ID)
	})
	each("Remove ends what runs, and needs nothing to be there", func(t *testing.T, s Setup) {
		start(t, s.Runtime, s.Sleeps)
		remove(t, s.Runtime, s.Sleeps.ID)
		remove(t, s.Runtime, s.Sleeps.ID)
		if state := state(t, s.Runtime, s.Sleeps.ID); state != "" {
			t.Errorf("state %q after Remove", state)
		}
	})
	each("an id can be used again", func(t *testing.T, s Setup) {
		for range 2 {
			start(t, s.Runtime, s.Sleeps)
			remove(t, s.Runtime, s.Sleeps.ID)
		}
	})
	each("containers of a group are apart", func(t *testing.T, s Setup) {
		s.Exits.Group = s.Sleeps.Group
		start(t, s.Runtime, s.Sleeps)
		start(t, s.Runtime, s.Exits)
		wait(t, s.Runtime, s.Exits.ID)
		remove(t, s.Runtime, s.Exits.ID)
		if state := state(t, s.Runtime, s.Sleeps.ID); state != pods.Running {
			t.Errorf("the other container of the group is %q", state)
		}
		remove(t, s.Runtime, s.Sleeps.ID)
	})
	each("a failed start leaves nothing", func(t *testing.T, s Setup) {
		c := s.Sleeps
		c.Args = []string{"/no/such/program"}
		if err := s.Runtime.Start(t.Context(), c); err == nil {
			t.Error("no error for a program that is not there")
		}
		if state := state(t, s.Runtime, c.ID); state != "" {
			t.Errorf("state %q", state)
		}
		start(t, s.Runtime, s.Sleeps)
		remove(t, s.Runtime, s.Sleeps.ID)
	})
	each("Wait ends with its context", func(t *testing.T, s Setup) {
		start(t, s.Runtime, s.Sleeps)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Runtime.Wait(ctx, s.Sleeps.ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		remove(t, s.Runtime, s.Sleeps.ID)
	})
}

func prepare(t *testing.T, s Setup) Setup {
	dir := t.TempDir()
	for i, c := range []*pods.Container{&s.Sleeps, &s.Exits} {
		c.ID = []string{"sleeps", "exits"}[i]
		c.Group = "group-" + c.ID
		c.Stdout, c.Stderr = filepath.Join(dir, c.ID+".out"), filepath.Join(dir, c.ID+".err")
		for _, f := range []string{c.Stdout, c.Stderr} {
			if err := os.WriteFile(f, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func start(t *testing.T, r pods.Runtime, c pods.Container) {
	t.Helper()
	if err := r.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, r pods.Runtime, id string) pods.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit, err := r.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func remove(t *testing.T, r pods.Runtime, id string) {
	t.Helper()
	if err := r.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, r pods.Runtime, id string) pods.State {
	t.Helper()
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if p.ID == id {
			return p.State
		}
	}
	return ""
}
