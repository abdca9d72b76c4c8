package support

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
)

// podEntries are fields of a Pod that are not a container's or a volume's.
func podEntries() []Entry {
	hostNetwork := func(p corev1.PodSpec) bool { return p.HostNetwork }
	return []Entry{
		refuse[corev1.PodSpec]("shareProcessNamespace", "a container sees its own processes only; run them in one container"),
		ignore[corev1.PodSpec]("schedulerName", "Berth's own scheduler places the Pod").other(corev1.DefaultSchedulerName),
		refuse[corev1.PodSpec]("schedulingGroup", "Pods are scheduled one by one, not as a group"),
		refuse[corev1.PodSpec]("evictionResponders", "an eviction is carried out at once, and nobody is asked"),
		refuse[corev1.PodSpec]("runtimeClassName", "containers are run by runc alone"),
		refuse[corev1.PodSpec]("os.name", "nodes run Linux").other(string(corev1.Linux)),
		only(refuse[corev1.PodSpec]("hostUsers", "users in a Pod are those of the node; leave the field out"), "false", func(v bool) bool { return !v }),
		refuse[corev1.PodSpec]("setHostnameAsFQDN", "the host name of a Pod is its short name"),
		refuse[corev1.PodSpec]("hostnameOverride", "the host name of a Pod is its hostname or its name"),
		where(refuse[corev1.PodSpec]("hostAliases", "a Pod in the node's network has the node's /etc/hosts"), "with hostNetwork", hostNetwork),
		where(refuse[corev1.PodSpec]("initContainers.ports.hostPort", "ports of the node lead to containers, not to init containers"), "without hostNetwork",
			func(p corev1.PodSpec) bool { return !p.HostNetwork }),
		refuse[corev1.PodSpec]("resourceClaims", "devices are not given out by claims"),
		refuse[corev1.PodSpec]("resources.limits", "a Pod as a whole has no limit; set resources.limits on its containers"),
		ignore[corev1.PodSpec]("resources.requests", "it counts when a node is chosen; a container's share is that of its own resources.requests"),
		refuse[corev1.Toleration]("operator", "values of taints are not compared as numbers; use Equal or Exists").of("Lt", "Gt"),
	}
}

// containerEntries are fields of containers; those of ephemeral ones are the same.
func containerEntries() []Entry {
	return []Entry{
		refuse[corev1.Container]("restartPolicy", "a container is restarted as the Pod's restartPolicy says").other(string(corev1.ContainerRestartPolicyAlways)),
		refuse[corev1.Container]("restartPolicyRules", "a container is restarted as the Pod's restartPolicy says"),
		ignore[corev1.Container]("resizePolicy.restartPolicy", "a Pod is not resized in place; a change makes a new one").of(string(corev1.RestartContainer)),
		refuse[corev1.Container]("volumeDevices", "block devices are not given to containers"),
		ignore[corev1.Container]("terminationMessagePolicy", "the message is what the container writes to terminationMessagePath").of(string(corev1.TerminationMessageFallbackToLogsOnError)),
		refuse[corev1.ResourceRequirements]("claims", "devices are not given out by claims"),
		ignore[corev1.ResourceRequirements]("limits[ephemeral-storage]", "what a container writes to the disk is not limited; requests count when a node is chosen"),
		refuse[corev1.ResourceRequirements]("limits[hugepages-*]", "nodes offer no huge pages").present(),
		refuse[corev1.Lifecycle]("stopSignal", "a container is stopped with the signal that its image names, or SIGTERM"),
		refuse[corev1.LifecycleHandler]("tcpSocket", "a hook does nothing with it; use exec, httpGet or sleep").present(),
		refuse[corev1.LifecycleHandler]("httpGet.scheme", "a hook asks over HTTP; use exec").of(string(corev1.URISchemeHTTPS)),
		refuse[corev1.LifecycleHandler]("httpGet.httpHeaders", "a hook sends no headers of yours; use exec"),
		refuse[corev1.HTTPGetAction]("protocol", "requests are made with HTTP/1.1").other(string(corev1.HTTPProtocolHTTP1)),
		refuse[corev1.EnvVarSource]("fileKeyRef", "variables are not read from files; use configMapKeyRef or secretKeyRef").present(),
		refuse[corev1.VolumeMount]("recursiveReadOnly", "mounts below the volume stay writable").of(string(corev1.RecursiveReadOnlyEnabled)),
		ignore[corev1.VolumeMount]("recursiveReadOnly", "mounts below the volume stay writable").of(string(corev1.RecursiveReadOnlyIfPossible)),
		refuse[corev1.VolumeMount]("bindMountOptions", "a volume is mounted without further options"),
	}
}

// securityEntries are fields of the two security contexts.
func securityEntries() []Entry {
	const (
		noSELinux   = "containers have no SELinux labels of their own"
		noWindows   = "nodes run Linux"
		noProfile   = "profiles of the node are not loaded; use type RuntimeDefault"
		unconfined  = "containers run without an AppArmor profile"
		strictGroup = "the groups of the image's user are kept"
	)
	out := []Entry{
		refuse[corev1.SecurityContext]("procMount", "/proc is masked as usual").other(string(corev1.DefaultProcMount)),
		refuse[corev1.PodSecurityContext]("sysctls", "kernel parameters of a Pod are not set; set them on the node"),
		refuse[corev1.PodSecurityContext]("supplementalGroupsPolicy", strictGroup).of(string(corev1.SupplementalGroupsPolicyStrict)),
		ignore[corev1.PodSecurityContext]("seLinuxChangePolicy", noSELinux),
	}
	for _, part := range []reflect.Type{reflect.TypeFor[corev1.SecurityContext](), reflect.TypeFor[corev1.PodSecurityContext]()} {
		for _, e := range []Entry{
			refuse[corev1.SecurityContext]("seLinuxOptions", noSELinux),
			refuse[corev1.SecurityContext]("windowsOptions", noWindows),
			refuse[corev1.SecurityContext]("seccompProfile.localhostProfile", noProfile),
			refuse[corev1.SecurityContext]("appArmorProfile.localhostProfile", "profiles of the node are not loaded, and "+unconfined),
			ignore[corev1.SecurityContext]("appArmorProfile.type", unconfined).of(string(corev1.AppArmorProfileTypeRuntimeDefault)),
		} {
			e.Part = part
			out = append(out, e)
		}
	}
	return out
}
