package pods

import (
	corev1 "k8s.io/api/core/v1"
)

// The kernel's units: 1024 shares and 100 ms of every 100 ms are one CPU.
const (
	sharesPerCPU = 1024
	sharesMin    = 2
	cpuPeriod    = 100_000
	quotaMin     = 1_000
)

// resources turns requests and limits into those of a control group
// (k8s.io/kubernetes/pkg/kubelet/cm, MilliCPUToShares and MilliCPUToQuota).
func resources(c *corev1.Container, qos corev1.PodQOSClass, nodeMemory int64) Resources {
	request, limit := c.Resources.Requests, c.Resources.Limits
	milli := request.Cpu().MilliValue()
	if milli == 0 {
		milli = limit.Cpu().MilliValue()
	}
	out := Resources{CPUShares: max(sharesMin, uint64(milli)*sharesPerCPU/1000), CPUPeriod: cpuPeriod, OOMScoreAdj: oomScore(c, qos, nodeMemory)}
	if cpu := limit.Cpu().MilliValue(); cpu > 0 {
		out.CPUQuota = max(quotaMin, cpu*cpuPeriod/1000)
	}
	out.MemoryLimit = limit.Memory().Value()
	return out
}

// oomScore says whom the kernel ends first when memory runs out
// (k8s.io/kubernetes/pkg/kubelet/qos).
func oomScore(c *corev1.Container, qos corev1.PodQOSClass, nodeMemory int64) int {
	switch qos {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	if nodeMemory == 0 {
		return 999
	}
	adj := 1000 - (1000*c.Resources.Requests.Memory().Value())/nodeMemory
	return int(min(max(adj, 3), 999))
}

// qosClass is the pod's class, by the rule of its documentation.
func qosClass(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	guaranteed, any := true, false
	for _, c := range append(append([]corev1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			if !request.IsZero() || !limit.IsZero() {
				any = true
			}
			if limit.IsZero() || (!request.IsZero() && request.Cmp(limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
