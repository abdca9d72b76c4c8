package worker

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// slack is what a process may have beyond its limit before the kernel gives
	// it no more: the pool sees to the limit itself, and says so in words.
	slack = 256 << 20
	// maxStack ends recursion without end before it has used the memory, in bytes.
	maxStack = 192 << 20
	// returnAbove is the heap above which memory is given back after work, in bytes.
	returnAbove = 64 << 20
)

// Serve does the work that comes in, until it ends: that is when the process that
// hands it out has ended, and no work goes on for nobody.
func Serve(in io.Reader, out io.Writer, work func([]byte) []byte) error {
	debug.SetMaxStack(maxStack)
	ended := make(chan error, 1)
	frames := make(chan []byte)
	go func() {
		for {
			frame, err := readFrame(in)
			if err != nil {
				ended <- err
				return
			}
			frames <- frame
		}
	}()
	go func() {
		for frame := range frames {
			if len(frame) < 8 {
				ended <- errors.New("work without limits")
				return
			}
			limit(int64(binary.BigEndian.Uint64(frame)))
			if err := writeFrame(out, work(frame[8:])); err != nil {
				ended <- err
				return
			}
			giveBack()
		}
	}()
	if err := <-ended; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// limit makes the collector work harder near the limit, and the kernel refuse
// memory beyond it.
func limit(memory int64) {
	debug.SetMemoryLimit(memory * 9 / 10)
	_ = unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: uint64(memory + slack), Max: unix.RLIM_INFINITY}) // the pool watches all the same
}

func giveBack() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapSys-m.HeapReleased > returnAbove {
		debug.FreeOSMemory()
	}
}

// nobody is the user that owns nothing.
const nobody = 65534

// Self is a command that runs this program again with arguments, with nothing of
// its surroundings: no environment, no network, no rights of root.
func Self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{"GOTRACEBACK=none"}
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		}
	}
	return cmd
}
