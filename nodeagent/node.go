package nodeagent

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
)

const (
	heartbeatPeriod = 10 * time.Second
	leaseSeconds    = 40
	maxPods         = 110
	// diskPressureAt and memoryPressureAt are shares of what is free.
	diskPressureAt   = 0.05
	memoryPressureAt = 0.03
)

// heartbeat registers the node, and says every ten seconds that it is there.
func (a *Agent) heartbeat(ctx context.Context) error {
	ticker := a.opts.Clock.NewTicker(heartbeatPeriod)
	defer ticker.Stop()
	for {
		wait := time.Duration(0)
		if err := a.beat(ctx); err != nil && ctx.Err() == nil {
			a.opts.Log.Warn("report the node", "node", a.opts.NodeName, "err", err)
			wait = time.Second
		}
		var again <-chan time.Time
		if wait > 0 {
			again = a.opts.Clock.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		case <-again:
		}
	}
}

func (a *Agent) beat(ctx context.Context) error {
	if err := a.register(ctx); err != nil {
		return err
	}
	return a.renew(ctx)
}

// register creates or corrects the Node, and its status where it has changed.
func (a *Agent) register(ctx context.Context) error {
	var node corev1.Node
	err := a.opts.Client.Get(ctx, types.NamespacedName{Name: a.opts.NodeName}, &node)
	if apierrors.IsNotFound(err) {
		node = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.opts.NodeName, Labels: a.labels()}}
		node.Spec.PodCIDR, node.Spec.PodCIDRs = a.opts.PodCIDR.String(), []string{a.opts.PodCIDR.String()}
		if err = a.opts.Client.Create(ctx, &node); err != nil {
			return fmt.Errorf("register node %s: %w", a.opts.NodeName, err)
		}
	}
	if err != nil {
		return fmt.Errorf("read node %s: %w", a.opts.NodeName, err)
	}
	if err := a.correct(ctx, &node); err != nil {
		return err
	}
	before := node.Status.DeepCopy()
	a.status(ctx, &node)
	if equality.Semantic.DeepEqual(before, &node.Status) {
		return nil
	}
	if err := a.opts.Client.UpdateStatus(ctx, &node); err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("report the status of node %s: %w", a.opts.NodeName, err)
	}
	return nil
}

// correct sets the labels and the pod range of a Node that was there.
func (a *Agent) correct(ctx context.Context, node *corev1.Node) error {
	before := node.DeepCopy()
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	for key, value := range a.labels() {
		node.Labels[key] = value
	}
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	node.Annotations[v1alpha1.AnnotationClaims] = claimsDir(a.opts)
	if node.Spec.PodCIDR == "" {
		node.Spec.PodCIDR, node.Spec.PodCIDRs = a.opts.PodCIDR.String(), []string{a.opts.PodCIDR.String()}
	}
	if equality.Semantic.DeepEqual(before, node) {
		return nil
	}
	if err := a.opts.Client.Update(ctx, node); err != nil {
		return fmt.Errorf("correct node %s: %w", a.opts.NodeName, err)
	}
	return nil
}

func (a *Agent) labels() map[string]string {
	out := map[string]string{
		corev1.LabelHostname:   a.opts.NodeName,
		corev1.LabelOSStable:   runtime.GOOS,
		corev1.LabelArchStable: runtime.GOARCH,
	}
	for key, value := range a.opts.Labels {
		out[key] = value
	}
	return out
}

// status fills in what the node is and how it does. Times change only with
// what they are of: the Lease is the heartbeat.
func (a *Agent) status(ctx context.Context, node *corev1.Node) {
	s := &node.Status
	s.Capacity = a.capacity.DeepCopy()
	s.Allocatable = a.capacity.DeepCopy()
	s.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: a.opts.NodeIP.String()},
		{Type: corev1.NodeHostName, Address: a.opts.NodeName},
	}
	s.NodeInfo = a.info(ctx)
	s.Images = nil
	if images, err := a.runtime.All(ctx); err == nil {
		for _, image := range images[:min(len(images), 50)] {
			name := image.Name
			s.Images = append(s.Images, corev1.ContainerImage{Names: []string{name, strings.SplitN(name, ":", 2)[0] + "@" + image.Digest}, SizeBytes: image.SizeBytes})
		}
	}
	now := metav1.NewTime(a.opts.Clock.Now())
	for _, c := range a.conditions(ctx) {
		setNodeCondition(s, c, now)
	}
}

func (a *Agent) conditions(ctx context.Context) []corev1.NodeCondition {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "AgentReady", Message: "the agent runs and containerd answers"}
	if _, err := a.runtime.Version(ctx); err != nil {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "RuntimeNotReady", fmt.Sprintf("containerd does not answer at %s: %s", a.address, err)
	}
	pressure := func(kind corev1.NodeConditionType, yes bool, reasonYes, reasonNo, message string) corev1.NodeCondition {
		if yes {
			return corev1.NodeCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reasonYes, Message: message}
		}
		return corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reasonNo}
	}
	var fs unix.Statfs_t
	diskLow := unix.Statfs(a.opts.DataDir, &fs) == nil && float64(fs.Bavail) < diskPressureAt*float64(fs.Blocks)
	mem := meminfo()
	memoryLow := mem["MemTotal"] > 0 && float64(mem["MemAvailable"]) < memoryPressureAt*float64(mem["MemTotal"])
	return []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, memoryLow, "LittleMemory", "EnoughMemory", "less than 3% of memory is free"),
		pressure(corev1.NodeDiskPressure, diskLow, "LittleDisk", "EnoughDisk", fmt.Sprintf("less than 5%% of the disk of %s is free: remove what is not needed", a.opts.DataDir)),
		pressure(corev1.NodePIDPressure, pidsLow(), "FewPIDs", "EnoughPIDs", "more than 90% of kernel.pid_max are in use"),
		ready,
	}
}

func setNodeCondition(s *corev1.NodeStatus, c corev1.NodeCondition, now metav1.Time) {
	for i := range s.Conditions {
		have := &s.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		c.LastTransitionTime, c.LastHeartbeatTime = now, now
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		if have.Status == c.Status && have.Reason == c.Reason && have.Message == c.Message {
			return
		}
		*have = c
		return
	}
	c.LastTransitionTime, c.LastHeartbeatTime = now, now
	s.Conditions = append(s.Conditions, c)
}

func (a *Agent) info(ctx context.Context) corev1.NodeSystemInfo {
	version, _ := a.runtime.Version(ctx)
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	return corev1.NodeSystemInfo{
		MachineID: readLine("/etc/machine-id"), BootID: readLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion: unix.ByteSliceToString(uts.Release[:]), OSImage: osImage(),
		ContainerRuntimeVersion: "containerd://" + strings.TrimPrefix(version, "v"),
		KubeletVersion:          a.opts.Version, KubeProxyVersion: "",
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
}

// renew says that the node is there.
func (a *Agent) renew(ctx context.Context) error {
	now := metav1.NewMicroTime(a.opts.Clock.Now())
	seconds := int32(leaseSeconds)
	key := types.NamespacedName{Namespace: corev1.NamespaceNodeLease, Name: a.opts.NodeName}
	var lease coordinationv1.Lease
	err := a.opts.Client.Get(ctx, key, &lease)
	if apierrors.IsNotFound(err) {
		lease = coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &a.opts.NodeName, LeaseDurationSeconds: &seconds, RenewTime: &now}
		err = a.opts.Client.Create(ctx, &lease)
	} else if err == nil {
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &a.opts.NodeName, &seconds, &now
		err = a.opts.Client.Update(ctx, &lease)
	}
	if err != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("renew the lease of node %s: %w", a.opts.NodeName, err)
	}
	return nil
}

// capacity is what the machine has.
func capacity(dataDir string) (corev1.ResourceList, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dataDir, &fs); err != nil {
		return nil, fmt.Errorf("measure the disk of %s: %w", dataDir, err)
	}
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(meminfo()["MemTotal"]*1024, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(maxPods, resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI),
	}, nil
}

// meminfo is /proc/meminfo, in kB.
func meminfo() map[string]int64 {
	out := map[string]int64{}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return out
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			out[strings.TrimSuffix(fields[0], ":")] = n
		}
	}
	return out
}

func pidsLow() bool {
	limit, err := strconv.Atoi(readLine("/proc/sys/kernel/pid_max"))
	fields := strings.Fields(readLine("/proc/loadavg"))
	if err != nil || len(fields) < 4 {
		return false
	}
	_, total, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(total)
	return err == nil && n > limit*9/10
}

func readLine(file string) string {
	data, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func osImage() string {
	data, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return "Linux"
}
