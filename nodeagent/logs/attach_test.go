package logs_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"berth.dev/berth/nodeagent/logs"
)

// screen is what a client that attached has seen.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *screen) shows(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.text() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the client sees %q, want %q", s.text(), want)
		}
	}
}

func TestAttachShowsWhatComesAsItIs(t *testing.T) {
	c, stop := collector(t, t.TempDir())
	defer stop()
	if err := c.Attach(t.Context(), main, io.Discard, nil); !errors.Is(err, logs.ErrNoLog) {
		t.Fatalf("attach to nothing: %v", err)
	}
	out, errs, err := c.Begin(main)
	if err != nil {
		t.Fatal(err)
	}
	write(t, out, "before\n")
	var stdout, stderr, both screen
	ended := make(chan error, 2)
	go func() { ended <- c.Attach(t.Context(), main, &stdout, &stderr) }()
	go func() { ended <- c.Attach(t.Context(), main, &both, &both) }()
	// The attachments begin when they begin: write until both see it.
	for stdout.text() == "" || both.text() == "" {
		write(t, out, "?")
		time.Sleep(5 * time.Millisecond)
	}
	begun := stdout.text()
	write(t, out, "$ ") // no line, and seen at once
	stdout.shows(t, begun+"$ ")
	write(t, errs, "problem\n")
	stderr.shows(t, "problem\n")
	write(t, out, "the end")
	if err := c.Finish(main); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if got := stdout.text(); got != begun+"$ the end" {
		t.Errorf("at the end the client has seen %q", got)
	}
	if got := both.text(); !strings.HasSuffix(got, "the end") || !strings.Contains(got, "problem\n") {
		t.Errorf("a client of both streams has seen %q", got)
	}
}

// gate is a client that reads nothing until it is opened.
type gate struct {
	open  chan struct{}
	began sync.Once
	stuck chan struct{}
	n     int
}

func (g *gate) Write(p []byte) (int, error) {
	g.began.Do(func() { close(g.stuck) })
	<-g.open
	g.n += len(p)
	return len(p), nil
}

func TestAttachCutsOffWhoDoesNotRead(t *testing.T) {
	c, stop := collector(t, t.TempDir())
	defer stop()
	out, _, err := c.Begin(main)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{open: make(chan struct{}), stuck: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- c.Attach(t.Context(), main, g, nil) }()
	for stuck := false; !stuck; {
		write(t, out, "line\n")
		select {
		case <-g.stuck:
			stuck = true
		case <-time.After(5 * time.Millisecond):
		}
	}
	mebibyte := strings.Repeat(strings.Repeat("x", 1023)+"\n", 1024)
	for range 40 {
		write(t, out, mebibyte)
	}
	for end := time.Now().Add(30 * time.Second); !strings.Contains(read(t, c, logs.ReadOptions{Tail: 1}), "x"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the collector waits for a client")
		}
	}
	if err := c.Finish(main); err != nil { // all is collected
		t.Fatal(err)
	}
	close(g.open)
	if err := <-ended; !errors.Is(err, logs.ErrSlow) {
		t.Errorf("a client that is 40 MiB behind: %v, after %d bytes", err, g.n)
	}
}
