package main

import (
	"strings"
	"testing"
	"time"
)

// line is a writer that hands on what is written.
type line chan string

func (l line) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestWhoWaitsIsTold(t *testing.T) {
	said := make(line)
	done := patiently(said, time.Millisecond, "compiling")
	for range 2 {
		if text := <-said; !strings.HasPrefix(text, "compiling: ") || !strings.HasSuffix(text, " so far\n") {
			t.Errorf("it says %q", text)
		}
	}
	ended := make(chan struct{})
	go func() {
		done()
		close(ended)
	}()
	for {
		select {
		case <-said: // it was being said
		case <-ended:
			return
		}
	}
}
