package pods

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// DownwardValue resolves a field or resource reference of a pod, as the
// downward API has it. ip is the pod's address, which its status may not have yet.
func DownwardValue(pod *corev1.Pod, ip netip.Addr, field *corev1.ObjectFieldSelector, res *corev1.ResourceFieldSelector) (string, error) {
	if field != nil {
		return fieldValue(pod, ip, field.FieldPath)
	}
	if res != nil {
		return resourceValue(pod, res)
	}
	return "", fmt.Errorf("neither a field nor a resource is named")
}

func fieldValue(pod *corev1.Pod, ip netip.Addr, path string) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return pod.Status.HostIP, nil
	case "status.podIP", "status.podIPs":
		if ip.IsValid() {
			return ip.String(), nil
		}
		return pod.Status.PodIP, nil
	}
	return "", &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("field %q is not one that a pod can refer to", path)}
}

// subscript splits metadata.labels['key'].
func subscript(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return name, key, ok
}

func formatMap(m map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%s", key, strconv.Quote(m[key])))
	}
	return strings.Join(lines, "\n")
}

func resourceValue(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
	var c *corev1.Container
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == ref.ContainerName || ref.ContainerName == "" && i == 0 {
			c = &pod.Spec.Containers[i]
		}
	}
	if c == nil {
		return "", &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("resource field names the container %q, which the pod does not have", ref.ContainerName)}
	}
	return ResourceOf(c, ref)
}

// ResourceOf resolves a resource field of one container, in units of its divisor.
func ResourceOf(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	var list corev1.ResourceList
	switch kind {
	case "limits":
		list = c.Resources.Limits
	case "requests":
		list = c.Resources.Requests
	default:
		return "", &WaitError{Reason: reasonConfigError, Message: fmt.Sprintf("resource %q is neither limits.… nor requests.…", ref.Resource)}
	}
	quantity := list[corev1.ResourceName(name)]
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(int64(math.Ceil(float64(quantity.MilliValue())/float64(divisor.MilliValue()))), 10), nil
	}
	return strconv.FormatInt(int64(math.Ceil(float64(quantity.Value())/float64(divisor.Value()))), 10), nil
}
