package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// sayEvery is how often somebody who waits is told what for.
const sayEvery = 3 * time.Second

// patiently tells who waits, again and again, what for and how long already,
// until the function that it returns is called. Nothing is said after that.
func patiently(out io.Writer, every time.Duration, what string) (done func()) {
	end := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		began := time.Now()
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
				fmt.Fprintf(out, "%s: %s so far\n", what, time.Since(began).Round(time.Second))
			}
		}
	})
	return func() {
		close(end)
		talking.Wait()
	}
}
