package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// attachWindow is how many bytes of a stream are kept for a client that looks
// at it. One that falls further behind is cut off: a container must not fill
// the disk because somebody does not read.
const attachWindow = 16 << 20

// ErrSlow says that a client has not kept up with a container.
var ErrSlow = fmt.Errorf("the client is more than %d MiB behind the container's output", attachWindow>>20)

// Attach writes what a run writes from now on, as it is and not by lines, until
// the run has ended or the context is done. A nil writer is for a stream that
// nobody wants. ErrNoLog says that the run has ended; ErrSlow ends a client
// that does not keep up.
func (c *Collector) Attach(ctx context.Context, i Instance, stdout, stderr io.Writer) error {
	a, err := c.attach(i, [2]io.Writer{stdout, stderr})
	if err != nil {
		return err
	}
	defer c.detach(a)
	for {
		wrote := c.wrote(a)
		for k := range a.files {
			if err := c.send(a, k); err != nil {
				return err
			}
		}
		if wrote == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wrote:
		}
	}
}

// attachment is one client that looks at a run.
type attachment struct {
	run   *instance
	files [2]*os.File // nil where nobody looks
	to    [2]io.Writer
	at    [2]int64
}

func (c *Collector) attach(i Instance, to [2]io.Writer) (*attachment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	run := c.streams[c.base(i)]
	if run == nil {
		return nil, ErrNoLog
	}
	a := &attachment{run: run, to: to}
	for k := range to {
		if to[k] == nil {
			continue
		}
		file, err := os.Open(run.raw[k].Name())
		if err != nil {
			a.close()
			return nil, fmt.Errorf("open a container's output: %w", err)
		}
		a.files[k] = file
		if a.at[k], err = file.Seek(0, io.SeekEnd); err != nil {
			a.close()
			return nil, fmt.Errorf("find the end of a container's output: %w", err)
		}
	}
	run.attached++
	return a, nil
}

func (c *Collector) detach(a *attachment) {
	c.mu.Lock()
	a.run.attached--
	c.mu.Unlock()
	a.close()
}

// wrote is what to wait for; nil when the run has ended.
func (c *Collector) wrote(a *attachment) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return a.run.wrote
}

// send writes what has come in one stream.
func (c *Collector) send(a *attachment, k int) error {
	if a.files[k] == nil {
		return nil
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := a.files[k].ReadAt(buf, a.at[k])
		if n == 0 {
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read a container's output: %w", err)
			}
			return nil
		}
		c.mu.Lock()
		gone := a.run.punched[k] > a.at[k] // what was read may be a hole
		c.mu.Unlock()
		if gone {
			return ErrSlow
		}
		if _, err := a.to[k].Write(buf[:n]); err != nil {
			return fmt.Errorf("send a container's output: %w", err)
		}
		a.at[k] += int64(n)
	}
}

func (a *attachment) close() {
	for _, file := range a.files {
		if file != nil {
			_ = file.Close()
		}
	}
}
