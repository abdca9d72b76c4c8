package volumes

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestHostPathIsOfItsType(t *testing.T) {
	for kind, ok := range map[corev1.HostPathType]bool{
		corev1.HostPathUnset: true, corev1.HostPathCharDev: true,
		corev1.HostPathBlockDev: false, corev1.HostPathFile: false, corev1.HostPathDirectory: false, corev1.HostPathSocket: false,
	} {
		if err := hostPath(&corev1.HostPathVolumeSource{Path: "/dev/null", Type: &kind}); (err == nil) != ok {
			t.Errorf("/dev/null as %q: %v", kind, err)
		}
	}
}
