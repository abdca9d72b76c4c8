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
// or the context is done; however often the log is rotated meanwhile, nothing is
// left out and nothing comes twice, unless the reader falls behind by all files.
func (c *Collector) Read(ctx context.Context, i Instance, opts ReadOptions, w io.Writer) error {
	base := c.base(i)
	files, grown, rotations, err := c.snapshot(base)
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	r := &reader{opts: opts, w: w}
	if opts.Tail >= 0 {
		if r.skip, err = skipped(files, opts); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := r.copy(f); err != nil {
			return r.done(err)
		}
	}
	for opts.Follow && grown != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-grown:
		}
		current := files[len(files)-1]
		if err := r.copy(current); err != nil {
			return r.done(err)
		}
		fresh, more, now, err := c.snapshot(base)
		if err != nil {
			return err
		}
		// A log that has ended says nothing of rotations: look for our file.
		turns := now - rotations
		if more == nil {
			turns = position(fresh, current)
		}
		if err := r.copy(current); err != nil { // what came before it was rotated
			closeAll(fresh)
			return r.done(err)
		}
		for _, f := range fresh[max(0, len(fresh)-max(turns, 0)):] {
			if err := r.copy(f); err != nil {
				closeAll(fresh)
				return r.done(err)
			}
		}
		if turns > 0 {
			closeAll(files)
			files = fresh
		} else {
			closeAll(fresh)
		}
		grown, rotations = more, now
	}
	return nil
}

// position is how many files came after f; all of them when f is not there.
func position(files []*os.File, f *os.File) int {
	mine, err := f.Stat()
	if err != nil {
		return 0
	}
	for i, other := range files {
		if info, err := other.Stat(); err == nil && os.SameFile(mine, info) {
			return len(files) - 1 - i
		}
	}
	return len(files)
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

// skipped is how many whole lines come before the last ones that are wanted.
func skipped(files []*os.File, opts ReadOptions) (int64, error) {
	var total int64
	for _, f := range files {
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 2*pieceLimit)
		for lines.Scan() {
			if p, ok := parsePiece(lines.Bytes()); ok && !p.partial && !p.at.Before(opts.Since) {
				total++
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return 0, fmt.Errorf("read the log: %w", err)
		}
	}
	return total - opts.Tail, nil
}
