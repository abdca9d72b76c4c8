package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// ErrNoLog says that there is no log of that run.
var ErrNoLog = errors.New("no log")

// ReadOptions selects lines, as corev1.PodLogOptions does.
type ReadOptions struct {
	Follow     bool
	Timestamps bool
	Since      time.Time
	// Tail is how many lines of the end; negative: all.
	Tail int64
	// Limit is how many bytes to write at most; 0: no limit.
	Limit int64
}

// Read writes a run's log to w. With Follow it goes on until the run has ended
// or the context is done.
func (c *Collector) Read(ctx context.Context, i Instance, opts ReadOptions, w io.Writer) error {
	base := c.base(i)
	r := &reader{opts: opts, w: w, skip: -1}
	if opts.Tail >= 0 {
		total, err := count(base, opts.Since)
		if err != nil {
			return err
		}
		r.skip = total - opts.Tail
	}
	grown, more, rotations := c.changed(base)
	files := olderFiles(base)
	current, err := os.Open(base + ".log")
	if errors.Is(err, os.ErrNotExist) && len(files) == 0 {
		return ErrNoLog
	}
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer func() { current.Close() }()
	for _, file := range files {
		if err := r.file(file); err != nil {
			return r.done(err)
		}
	}
	for {
		if err := r.copy(current); err != nil {
			return r.done(err)
		}
		if !opts.Follow || !more {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		}
		var now int
		grown, more, now = c.changed(base)
		if !more {
			now = rotations // the rest is in the file that is open, or in one beside it
			if fresh, err := os.Stat(base + ".log"); err == nil {
				if have, err := current.Stat(); err == nil && !os.SameFile(fresh, have) {
					now++
				}
			}
		}
		if now == rotations {
			continue
		}
		if err := r.copy(current); err != nil {
			return r.done(err)
		}
		if current, err = r.next(base, current, now-rotations); err != nil {
			return r.done(err)
		}
		rotations = now
	}
}

// errLimit ends a reading that has reached its limit of bytes.
var errLimit = errors.New("limit of bytes reached")

type reader struct {
	opts    ReadOptions
	w       io.Writer
	skip    int64
	written int64
	rest    []byte
	inLine  bool
}

func (r *reader) done(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// next reads the files that a log was rotated to since, and opens the newest.
func (r *reader) next(base string, old *os.File, turns int) (*os.File, error) {
	old.Close()
	for n := min(turns-1, rotateFiles-1); n >= 1; n-- {
		if err := r.file(fmt.Sprintf("%s.log.%d", base, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return old, err
		}
	}
	return os.Open(base + ".log")
}

func (r *reader) file(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.copy(f)
}

// copy writes the lines from where f stands to its end. A line that is not
// complete yet is kept for the next call.
func (r *reader) copy(f *os.File) error {
	buf := make([]byte, 32<<10)
	var out bytes.Buffer
	for {
		n, err := f.Read(buf)
		r.rest = append(r.rest, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(r.rest, []byte{'\n'})
			if !ok {
				break
			}
			r.line(&out, line)
			r.rest = rest
		}
		r.rest = append([]byte(nil), r.rest...)
		if writeErr := r.flush(&out); writeErr != nil {
			return writeErr
		}
		if n == 0 || err != nil {
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the log: %w", err)
			}
			return nil
		}
	}
}

func (r *reader) line(out *bytes.Buffer, line []byte) {
	p, ok := parsePiece(line)
	if !ok || p.at.Before(r.opts.Since) {
		return
	}
	if r.skip > 0 {
		if !p.partial {
			r.skip--
		}
		return
	}
	if r.opts.Timestamps && !r.inLine {
		out.Write(p.stamp)
		out.WriteByte(' ')
	}
	out.Write(p.text)
	r.inLine = p.partial
	if !p.partial {
		out.WriteByte('\n')
	}
}

func (r *reader) flush(out *bytes.Buffer) error {
	data := out.Bytes()
	defer out.Reset()
	if len(data) == 0 {
		return nil
	}
	if limit := r.opts.Limit; limit > 0 && r.written+int64(len(data)) >= limit {
		_, err := r.w.Write(data[:limit-r.written])
		if err != nil {
			return err
		}
		return errLimit
	}
	r.written += int64(len(data))
	_, err := r.w.Write(data)
	return err
}

func olderFiles(base string) []string {
	var out []string
	for n := rotateFiles - 1; n >= 1; n-- {
		name := fmt.Sprintf("%s.log.%d", base, n)
		if _, err := os.Stat(name); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// count is the number of whole lines since a time.
func count(base string, since time.Time) (int64, error) {
	var total int64
	for _, name := range append(olderFiles(base), base+".log") {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("open the log: %w", err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 2*pieceLimit)
		for lines.Scan() {
			if p, ok := parsePiece(lines.Bytes()); ok && !p.partial && !p.at.Before(since) {
				total++
			}
		}
		f.Close()
	}
	return total, nil
}
