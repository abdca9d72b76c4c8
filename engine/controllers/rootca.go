package controllers

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// newRootCA keeps the ConfigMap with the authority of the API's certificate in
// each Namespace. One that a Source declares is the Source's.
func newRootCA(c *cluster, authority string) *standing {
	s := &standing{
		cluster: c, name: resources.RootCA, list: &corev1.ConfigMapList{},
		make: func(namespace string) client.Object {
			return &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: namespace, Name: resources.RootCA,
					Annotations: map[string]string{"kubernetes.io/description": "Contains a CA bundle that can be used to verify the API server."},
				},
				Data: map[string]string{resources.RootCAKey: authority},
			}
		},
		mend: func(obj client.Object) bool {
			cm := obj.(*corev1.ConfigMap)
			if _, managed := resources.Managed(cm); managed || cm.Data[resources.RootCAKey] == authority {
				return false
			}
			if cm.Data == nil {
				cm.Data = map[string]string{}
			}
			cm.Data[resources.RootCAKey] = authority
			return true
		},
	}
	s.start("root-ca")
	return s
}
