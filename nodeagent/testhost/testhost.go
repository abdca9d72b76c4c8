// Package testhost gives tests a machine of their own: the test binary runs again
// in a fresh network, mount and process namespace, which takes everything with it
// when it ends, a containerd and its containers included. It is for tests alone.
package testhost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const stage = "BERTH_TEST_STAGE"

// Main runs the tests of a package on a machine of their own. As root it always
// does; without root the tests are passed over, or fail when CI=true.
func Main(m *testing.M) {
	switch os.Getenv(stage) {
	case "":
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "these tests need root: they make namespaces")
			if os.Getenv("CI") == "true" {
				os.Exit(1)
			}
			os.Exit(0)
		}
		os.Exit(again("init", syscall.CLONE_NEWNET|syscall.CLONE_NEWNS|syscall.CLONE_NEWPID))
	case "init":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the test's machine:", err)
			os.Exit(1)
		}
		os.Exit(reap())
	}
	os.Exit(m.Run())
}

func command(next string, flags uintptr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stage+"="+next)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func again(next string, flags uintptr) int {
	err := command(next, flags).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run on a machine of its own:", err)
		return 1
	}
	return 0
}

// prepare mounts what a machine has and gives it an uplink.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return Uplink("uplink", NodeIP+"/24", 1500)
}

// NodeIP is the machine's own address.
const NodeIP = "192.0.2.10"

// Uplink makes a link with an address and the default route.
func Uplink(name, address string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "-out", PeerMTU: uint32(mtu)}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	peer, err := netlink.LinkByName(name + "-out")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(peer); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	gateway := addr.IP.To4()
	gateway[3] = 1
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Index, Gw: gateway})
}

// reap is the machine's first process: it runs the tests and buries orphans.
func reap() int {
	cmd := command("run", 0)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "run the tests:", err)
		return 1
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 1
		}
		if pid == cmd.Process.Pid && (status.Exited() || status.Signaled()) {
			if status.Signaled() {
				return 2
			}
			return status.ExitStatus()
		}
	}
}

// Runtime returns the folder of containerd, its shim and runc.
func Runtime(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = dir[:max(1, strings.LastIndexByte(dir, '/'))] {
		if _, err := os.Stat(dir + "/go.mod"); err == nil {
			break
		}
	}
	bin := dir + "/bin"
	if _, err := os.Stat(bin + "/containerd"); err != nil {
		t.Fatalf("containerd is not in %s: run `make runtime`", bin)
	}
	return bin
}

// Tool builds the test tool and returns its path.
func Tool(t testing.TB) string {
	t.Helper()
	tool := t.TempDir() + "/tool"
	run(t, "build the test tool", "build", "-o", tool, "berth.dev/berth/nodeagent/testhost/tool")
	return tool
}

// Image makes an OCI archive of busybox and the test tool, named name, and
// returns its path.
func Image(t testing.TB, name string) string {
	t.Helper()
	out := t.TempDir() + "/image.tar"
	run(t, "make the image (is busybox-static installed?)", "run", "berth.dev/berth/hack/image", "-name", name, "-o", out,
		"/bin/busybox=/bin/busybox", "->/bin/busybox=/bin/sh", Tool(t)+"=/bin/tool")
	return out
}

func run(t testing.TB, what string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", what, err, text)
	}
}
