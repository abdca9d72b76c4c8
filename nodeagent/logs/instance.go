package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Rotation: a container has at most this much log.
const (
	rotateSize  = 10 << 20
	rotateFiles = 5
)

// punchStep is how much of a capture file is collected before its space is
// given back.
const punchStep = 1 << 20

// instance is the collection of one run.
//
// The mark file makes it exact over a SIGKILL: before each append to the log it
// says how long the log is and how far the capture files have been read. A log
// that is longer than its mark holds an append that was not noted, and is cut
// back and read again.
type instance struct {
	base      string
	raw       [2]*os.File
	log, mark *os.File
	wd        [2]int32
	read      [2]int64
	punched   [2]int64
	size      int64
	rotations int
	grown     chan struct{}
	// wrote is closed when the container has written next, be it half a line.
	wrote chan struct{}
	// attached is how many clients look at the capture files themselves.
	attached int
}

func streamName(k int) string { return [2]string{"stdout", "stderr"}[k] }

func openInstance(base string) (_ *instance, err error) {
	s := &instance{base: base, grown: make(chan struct{}), wrote: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for k := range s.raw {
		if s.raw[k], err = os.OpenFile(base+"."+streamName(k), os.O_RDWR, 0); err != nil {
			return nil, err
		}
	}
	if s.mark, err = os.OpenFile(base+".mark", os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		return nil, err
	}
	if err = s.openLog(); err != nil {
		return nil, err
	}
	var mark [24]byte
	if n, _ := s.mark.ReadAt(mark[:], 0); n == len(mark) {
		s.read[0] = int64(binary.LittleEndian.Uint64(mark[0:]))
		s.read[1] = int64(binary.LittleEndian.Uint64(mark[8:]))
		if noted := int64(binary.LittleEndian.Uint64(mark[16:])); s.size > noted {
			if err = s.log.Truncate(noted); err != nil {
				return nil, err
			}
			s.size = noted
		}
	}
	return s, nil
}

func (s *instance) openLog() error {
	file, err := os.OpenFile(s.base+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	s.log, s.size = file, info.Size()
	return nil
}

// lastWrite is when the container wrote last: the best time there is for lines
// that came while no agent looked.
func (s *instance) lastWrite(now time.Time) time.Time {
	var last time.Time
	for _, file := range s.raw {
		if info, err := file.Stat(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	if last.IsZero() || last.After(now) {
		return now
	}
	return last
}

// drain moves everything that is complete. The caller holds c.mu.
func (c *Collector) drain(s *instance, end bool, at time.Time) error {
	moved := false
	for k := range s.raw {
		for {
			n, err := s.raw[k].ReadAt(c.buffer, s.read[k])
			if n == 0 {
				if err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("read a container's output: %w", err)
				}
				break
			}
			last := errors.Is(err, io.EOF)
			lines, used := appendLines(c.out[:0], streamName(k), at, c.buffer[:n], end && last)
			c.out = lines
			if used == 0 {
				break
			}
			if err := s.write(k, lines, int64(used)); err != nil {
				return err
			}
			moved = true
		}
	}
	if moved {
		close(s.grown)
		s.grown = make(chan struct{})
	}
	return nil
}

// write notes where things stand, appends, and gives space back.
func (s *instance) write(k int, lines []byte, used int64) error {
	if s.size > 0 && s.size+int64(len(lines)) > rotateSize {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	var mark [24]byte
	binary.LittleEndian.PutUint64(mark[0:], uint64(s.read[0]))
	binary.LittleEndian.PutUint64(mark[8:], uint64(s.read[1]))
	binary.LittleEndian.PutUint64(mark[16:], uint64(s.size))
	if _, err := s.mark.WriteAt(mark[:], 0); err != nil {
		return fmt.Errorf("note the state of a log: %w", err)
	}
	done := s.read[k]
	if s.attached > 0 {
		done -= attachWindow
	}
	if done-s.punched[k] >= punchStep {
		// File systems that cannot do it keep the space until the container ends.
		_ = unix.Fallocate(int(s.raw[k].Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.punched[k], done-s.punched[k])
		s.punched[k] = done
	}
	n, err := s.log.Write(lines)
	s.size += int64(n)
	if err != nil {
		return fmt.Errorf("append to a log: %w", err)
	}
	s.read[k] += used
	return nil
}

func (s *instance) rotate() error {
	if err := s.log.Close(); err != nil {
		return fmt.Errorf("rotate a log: %w", err)
	}
	for n := rotateFiles - 1; n >= 1; n-- {
		from := fmt.Sprintf("%s.log.%d", s.base, n-1)
		if n == 1 {
			from = s.base + ".log"
		}
		if err := os.Rename(from, fmt.Sprintf("%s.log.%d", s.base, n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate a log: %w", err)
		}
	}
	s.rotations++
	return s.openLog()
}

func (s *instance) close() {
	for _, file := range []*os.File{s.raw[0], s.raw[1], s.log, s.mark} {
		if file != nil {
			_ = file.Close()
		}
	}
}

// remove deletes the capture files; the log stays.
func (s *instance) remove() error {
	s.close()
	close(s.grown)
	close(s.wrote)
	s.wrote = nil
	var errs []error
	for _, name := range []string{".stdout", ".stderr", ".mark"} {
		if err := os.Remove(s.base + name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
