package resources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

// Names of what each Namespace has, as in Kubernetes.
const (
	// DefaultAccount is the ServiceAccount of Pods that name none.
	DefaultAccount = "default"
	// RootCA is the ConfigMap with the authority of the API's certificate.
	RootCA = "kube-root-ca.crt"
	// RootCAKey is the key in it.
	RootCAKey = "ca.crt"
)

const (
	// accountMount is where containers find the token.
	accountMount = "/var/run/secrets/kubernetes.io/serviceaccount"
	// accountVolume begins the name of the volume that is added for it.
	accountVolume = "kube-api-access-"
	// accountTokenLife is that of a mounted token, in seconds, as in Kubernetes.
	accountTokenLife = 3607
)

// Standing reports whether an object is one that Berth makes itself, and makes
// again when it is gone. A Source may declare it; it then becomes the Source's,
// and Berth's own again afterwards.
func Standing(obj client.Object) bool {
	switch obj.(type) {
	case *corev1.ServiceAccount:
		return obj.GetName() == DefaultAccount
	case *corev1.ConfigMap:
		return obj.GetName() == RootCA
	case *corev1.Service:
		return obj.GetNamespace() == "default" && obj.GetName() == "kubernetes"
	}
	return false
}

// Forget takes the role from a ServiceAccount that is no longer a Source's, for
// a role must not outlive its place in Git, and from the default one everything
// that was written on it. It stays the same account, so that running Pods keep
// theirs. Other objects are left alone.
func Forget(obj client.Object) {
	account, ok := obj.(*corev1.ServiceAccount)
	if !ok {
		return
	}
	delete(account.Annotations, v1alpha1.AnnotationRole)
	if !Standing(obj) {
		return
	}
	account.Labels, account.Annotations = nil, nil
	account.Secrets, account.ImagePullSecrets, account.AutomountServiceAccountToken = nil, nil, nil
}

// account gives a Pod its ServiceAccount, and what the containers need to speak
// to the API with it (as Kubernetes' ServiceAccount admission does).
func (t *Tx) account(ctx context.Context, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = DefaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := t.accountOf(ctx, pod)
	if err != nil {
		return err
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
	}
	if automount(pod, account) {
		mountAccount(pod)
	} else {
		unmountAccount(pod)
	}
	return nil
}

// accountOf finds the account, in this transaction too. The default one may
// still be on its way in a new Namespace.
func (t *Tx) accountOf(ctx context.Context, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	row := t.r.byKind[corev1.SchemeGroupVersion.WithKind("ServiceAccount")]
	name := pod.Spec.ServiceAccountName
	if c := t.byKey[row.key(pod.Namespace, name)]; c != nil && (c.main == nil || c.main.Value != nil) {
		return c.result.(*corev1.ServiceAccount), nil
	}
	obj, _, err := t.r.load(ctx, row, pod.Namespace, name)
	if apierrors.IsNotFound(err) && name == DefaultAccount {
		return &corev1.ServiceAccount{}, nil
	}
	if apierrors.IsNotFound(err) {
		return nil, apierrors.NewForbidden(corev1.Resource("pods"), pod.Name,
			fmt.Errorf("error looking up service account %s/%s: serviceaccount %q not found", pod.Namespace, name, name))
	}
	if err != nil {
		return nil, err
	}
	account, ok := obj.(*corev1.ServiceAccount)
	if !ok {
		return nil, apierrors.NewInternalError(errors.New("a service account is of another kind"))
	}
	return account, nil
}

// automount: the Pod's own word counts before the account's.
func automount(pod *corev1.Pod, account *corev1.ServiceAccount) bool {
	for _, said := range []*bool{pod.Spec.AutomountServiceAccountToken, account.AutomountServiceAccountToken} {
		if said != nil {
			return *said
		}
	}
	return true
}

// mountAccount adds the volume and mounts it where nothing else is mounted.
func mountAccount(pod *corev1.Pod) {
	name, there := accountVolumeOf(&pod.Spec)
	if !there {
		name = accountVolume + rand.String(5)
	}
	mounted := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			taken := func(m corev1.VolumeMount) bool { return m.MountPath == accountMount }
			if slices.ContainsFunc(list[i].VolumeMounts, taken) {
				continue
			}
			list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: accountMount})
			mounted = true
		}
	}
	if mounted && !there {
		pod.Spec.Volumes = append(pod.Spec.Volumes, accountAccess(name))
	}
}

// unmountAccount takes away what mountAccount added to the Pod that this one
// replaces, when the account no longer wants it.
func unmountAccount(pod *corev1.Pod) {
	name, there := accountVolumeOf(&pod.Spec)
	ours := func(v corev1.Volume) bool {
		return v.Name == name && equality.Semantic.DeepEqual(v, accountAccess(name))
	}
	if !there || !slices.ContainsFunc(pod.Spec.Volumes, ours) {
		return
	}
	pod.Spec.Volumes = slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), ours)
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = slices.DeleteFunc(slices.Clone(list[i].VolumeMounts), func(m corev1.VolumeMount) bool { return m.Name == name })
		}
	}
}

func accountVolumeOf(spec *corev1.PodSpec) (string, bool) {
	for _, v := range spec.Volumes {
		if strings.HasPrefix(v.Name, accountVolume) {
			return v.Name, true
		}
	}
	return "", false
}

// accountAccess is the volume with the token, the authority and the namespace.
func accountAccess(name string) corev1.Volume {
	life, mode := int64(accountTokenLife), corev1.ProjectedVolumeSourceDefaultMode
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &life}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: RootCA}, Items: []corev1.KeyToPath{{Key: RootCAKey, Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}}}
}

// keepAccount takes over into s what account has filled in on was and what s
// leaves out: that is no change.
func keepAccount(s, was *corev1.PodSpec) {
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	if isDefaultAccount(s.ServiceAccountName) && isDefaultAccount(was.ServiceAccountName) {
		s.ServiceAccountName, s.DeprecatedServiceAccount = was.ServiceAccountName, was.DeprecatedServiceAccount
	} else if s.DeprecatedServiceAccount == "" && s.ServiceAccountName == was.ServiceAccountName {
		s.DeprecatedServiceAccount = was.DeprecatedServiceAccount
	}
	if len(s.ImagePullSecrets) == 0 && s.ServiceAccountName == was.ServiceAccountName {
		s.ImagePullSecrets = was.ImagePullSecrets
	}
	name, added := accountVolumeOf(was)
	if _, there := accountVolumeOf(s); there || !added || (s.AutomountServiceAccountToken != nil && !*s.AutomountServiceAccountToken) {
		return
	}
	for _, v := range was.Volumes {
		if v.Name == name {
			s.Volumes = append(slices.Clip(s.Volumes), v)
		}
	}
	keepMounts(s.InitContainers, was.InitContainers, name)
	keepMounts(s.Containers, was.Containers, name)
}

func isDefaultAccount(name string) bool { return name == "" || name == DefaultAccount }

// keepMounts takes over the mounts of a volume, container by container.
func keepMounts(list, was []corev1.Container, volume string) {
	for i := range list {
		if i >= len(was) || list[i].Name != was[i].Name {
			return
		}
		for _, m := range was[i].VolumeMounts {
			if m.Name == volume {
				list[i].VolumeMounts = append(slices.Clip(list[i].VolumeMounts), m)
			}
		}
	}
}
