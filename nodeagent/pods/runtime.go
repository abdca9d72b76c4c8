package pods

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ErrNotFound says that there is no such container.
var ErrNotFound = errors.New("no such container")

// ErrNoImage says that an image is not on this node.
var ErrNoImage = errors.New("image is not on this node")

// Runtime runs containers. What it was told to start stays running when the
// agent ends; Wait finds the exit of a container that ended meanwhile.
type Runtime interface {
	// Start creates the container and runs it. On error nothing is left behind.
	Start(ctx context.Context, c Container) error
	// Wait blocks until the container has ended, through restarts of the
	// runtime; ErrNotFound when there is none.
	Wait(ctx context.Context, id string) (Exit, error)
	// Kill sends a signal, such as "SIGTERM", to the container's first process,
	// and SIGKILL to all of them.
	Kill(ctx context.Context, id, signal string) error
	// Remove ends the container, if it runs, and removes what is left of it.
	// No such container is no error.
	Remove(ctx context.Context, id string) error
	// List returns every container of this node.
	List(ctx context.Context) ([]Present, error)
}

// Images are the images of this node.
type Images interface {
	// Image resolves a reference to an image on this node, or ErrNoImage.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image. Its errors carry the registry's answer.
	Pull(ctx context.Context, ref string, auth []Credential) (Image, error)
}

// Execer runs a further process in a container.
type Execer interface {
	// Exec returns the exit code. A done context kills the process.
	Exec(ctx context.Context, id string, command []string, out io.Writer) (int, error)
}

// Network gives a pod its namespaces and its address.
type Network interface {
	// Setup is idempotent: the same pod gets the same address.
	Setup(ctx context.Context, s Sandbox) (Attachment, error)
	// Teardown removes what Setup made. Nothing there is no error.
	Teardown(ctx context.Context, uid string) error
	// Known tells which pods exist, at the start: what belongs to others is removed.
	Known(ctx context.Context, uids []string) error
}

// Volumes makes the folders that containers mount.
type Volumes interface {
	// Setup makes the pod's volumes and returns the host path of each by name.
	// A *WaitError says that something it needs is not there yet.
	Setup(ctx context.Context, pod *corev1.Pod, ip netip.Addr) (map[string]string, error)
	// SubPath resolves a path below a volume without leaving it.
	SubPath(ctx context.Context, pod *corev1.Pod, volume, base, sub string) (string, error)
	// Teardown removes the pod's volumes.
	Teardown(ctx context.Context, uid string) error
}

// Config reads the ConfigMaps and Secrets that pods refer to. A NotFound API
// error says that there is none; a *WaitError that it is not known yet.
type Config interface {
	// Use begins to follow what the pod refers to, Drop ends it.
	Use(ctx context.Context, pod *corev1.Pod)
	Drop(ctx context.Context, uid string)
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Volume is the volume that a claim is bound to; a *WaitError while there is none.
	Volume(ctx context.Context, namespace, claim string) (*corev1.PersistentVolume, error)
}

// ServiceLinks returns the variables that tell a pod of a namespace the
// addresses of its Services, sorted, as NAME=VALUE.
type ServiceLinks interface {
	ServiceEnv(namespace string, all bool) []string
}

// WaitError is a reason to wait: not a failure of ours.
type WaitError struct {
	Reason  string
	Message string
}

func (e *WaitError) Error() string { return e.Message }

// Sandbox is what a pod needs around its containers.
type Sandbox struct {
	UID, Namespace, Name string
	Hostname             string
	HostNetwork, HostIPC bool
	Ports                []HostPort
}

// HostPort is a port of the node that leads to a pod.
type HostPort struct {
	HostIP        netip.Addr
	Port          uint16
	ContainerPort uint16
	Protocol      corev1.Protocol
}

// Attachment is what Setup made. An empty path is the host's own namespace.
type Attachment struct {
	IP                        netip.Addr
	NetPath, IPCPath, UTSPath string
}

// Credential authenticates at one registry host.
type Credential struct {
	Registry, Username, Password string
}

// Image is an image on this node and what a container inherits from it.
type Image struct {
	// Name is the reference in its full form.
	Name string
	// ID is the digest of the image's configuration, Digest of its manifest.
	ID, Digest string
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	// User is as in the image: name, uid, or user:group.
	User       string
	StopSignal string
	SizeBytes  int64
}

// Container is a container to start.
type Container struct {
	ID string
	// Group is shared by the containers of a pod: they share one shim.
	Group string
	Image Image
	Args  []string
	// Env is NAME=VALUE, the last of a name wins.
	Env        []string
	WorkingDir string
	Sandbox    Attachment
	HostPID    bool
	Mounts     []Mount
	Security   Security
	Resources  Resources
	// CgroupParent is the pod's cgroup, such as /berth/pod-1234.
	CgroupParent string
	// Stdout and Stderr are files that exist; the shim appends to them.
	Stdout, Stderr string
	// Stdin is a FIFO that exists, or empty: the container reads nothing.
	Stdin string
	TTY   bool
	// JoinPID is the container whose processes this one sees; empty: its own.
	JoinPID string
}

// Mount is a bind mount.
type Mount struct {
	Source, Destination string
	ReadOnly            bool
	Propagation         string
}

// Security is what a container may do.
type Security struct {
	Privileged         bool
	ReadOnlyRootfs     bool
	NoNewPrivileges    bool
	User, Group        *int64
	SupplementalGroups []int64
	AddCaps, DropCaps  []string
	UnconfinedSeccomp  bool
	NonRoot            bool
	Sysctls            map[string]string
}

// Resources are limits in the units of cgroup v1; the runtime converts.
type Resources struct {
	CPUShares   uint64
	CPUQuota    int64
	CPUPeriod   uint64
	MemoryLimit int64
	OOMScoreAdj int
}

// Exit is how a container ended.
type Exit struct {
	Code uint32
	At   time.Time
	// OOM says that the kernel killed a process of it for want of memory.
	OOM bool
}

// Present is a container that the runtime knows.
type Present struct {
	ID, Group string
	State     State
}

// State is how far a container has come.
type State string

// The states of a container. Created is one that was never started.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)
