package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"berth.dev/berth/nodeagent/logs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var main = logs.Instance{Pod: "default_a_1", Container: "main", Restart: 0}

// collector runs until the returned function is called.
func collector(t *testing.T, dir string) (*logs.Collector, func()) {
	t.Helper()
	c, err := logs.Open(dir, clock.RealClock{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *logs.Collector, opts logs.ReadOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Read(t.Context(), main, opts, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormatAndStreams(t *testing.T) {
	dir := t.TempDir()
	c, stop := collector(t, dir)
	defer stop()
	out, errs, err := c.Begin(main)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 40000)
	write(t, out, "one\n"+long+"\nno newline")
	write(t, errs, "problem\n")
	if err := c.Finish(main); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "default_a_1/main/0.log"))
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(line, " ", 4)
		if _, err := time.Parse(time.RFC3339Nano, f[0]); err != nil {
			t.Errorf("time %q: %v", f[0], err)
		}
		tags = append(tags, f[1]+f[2])
	}
	if got, want := strings.Join(tags, " "), "stdoutF stdoutP stdoutP stdoutF stdoutF stderrF"; got != want {
		t.Errorf("pieces %s, want %s", got, want)
	}
	if got, want := read(t, c, logs.ReadOptions{Tail: -1}), "one\n"+long+"\nno newline\nproblem\n"; got != want {
		t.Errorf("log of %d bytes, want %d", len(got), len(want))
	}
	if got := read(t, c, logs.ReadOptions{Tail: 1}); got != "problem\n" {
		t.Errorf("tail 1: %q", got)
	}
	if got := read(t, c, logs.ReadOptions{Tail: -1, Limit: 6}); got != "one\nxx" {
		t.Errorf("limit 6: %q", got)
	}
	if got := read(t, c, logs.ReadOptions{Tail: -1, Since: time.Now().Add(time.Minute)}); got != "" {
		t.Errorf("since the future: %q", got)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "default_a_1/main/0.std*"))
	if len(left) > 0 {
		t.Errorf("capture files are left: %v", left)
	}
}

// TestNothingIsLostOrRepeatedOverKills ends collectors at every stage without
// their having a say, as SIGKILL would, an append that was not noted included.
func TestNothingIsLostOrRepeatedOverKills(t *testing.T) {
	dir := t.TempDir()
	c, stop := collector(t, dir)
	out, _, err := c.Begin(main)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for round := range 20 {
		for i := range 50 {
			line := fmt.Sprintf("round %d line %d\n", round, i)
			want.WriteString(line)
			write(t, out, line)
		}
		stop()
		if round%3 == 1 { // killed between the append and the next note
			log := filepath.Join(dir, "default_a_1/main/0.log")
			write(t, log, "2026-01-01T00:00:00.000000000Z stdout F this was written twice\n")
		}
		c, stop = collector(t, dir)
		if err := c.Adopt(main); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { stop() }()
	if err := c.Finish(main); err != nil {
		t.Fatal(err)
	}
	got := read(t, c, logs.ReadOptions{Tail: -1})
	// What was appended without a note is cut back, with the batch before it.
	if got != want.String() {
		t.Errorf("log has %d lines, want %d", strings.Count(got, "\n"), strings.Count(want.String(), "\n"))
	}
}

func TestFollowOverRotations(t *testing.T) {
	dir := t.TempDir()
	c, stop := collector(t, dir)
	defer stop()
	out, _, err := c.Begin(main)
	if err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := c.Read(context.Background(), main, logs.ReadOptions{Tail: -1, Follow: true}, pw)
		pw.Close()
		done <- err
	}()
	const lines, batch = 24000, 200 // 24 MB: two rotations
	go func() {
		pad := strings.Repeat("y", 990)
		for i := 0; i < lines; i += batch {
			var b strings.Builder
			for k := i; k < i+batch; k++ {
				fmt.Fprintf(&b, "%08d %s\n", k, pad)
			}
			f, _ := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
			_, _ = f.WriteString(b.String())
			f.Close()
			time.Sleep(time.Millisecond)
		}
		if err := c.Finish(main); err != nil {
			t.Error(err)
		}
	}()
	next := 0
	buf := make([]byte, 0, 1<<20)
	chunk := make([]byte, 64<<10)
	for {
		n, err := pr.Read(chunk)
		buf = append(buf, chunk[:n]...)
		for {
			line, rest, ok := bytes.Cut(buf, []byte{'\n'})
			if !ok {
				break
			}
			if want := fmt.Sprintf("%08d", next); string(line[:8]) != want {
				t.Fatalf("line %s, want %s: a gap or a repetition", line[:8], want)
			}
			next++
			buf = rest
		}
		if err != nil {
			break
		}
	}
	if err := <-done; err != nil || next != lines {
		t.Errorf("%d of %d lines, %v", next, lines, err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "default_a_1/main/0.log*")); len(files) != 3 {
		t.Errorf("files %v", files)
	}
}
