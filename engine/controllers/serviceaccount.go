package controllers

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/resources"
)

// newAccounts keeps the ServiceAccount "default" in each Namespace. What
// somebody writes on it stays.
func newAccounts(c *cluster) *standing {
	s := &standing{
		cluster: c, name: resources.DefaultAccount, list: &corev1.ServiceAccountList{},
		make: func(namespace string) client.Object {
			return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: resources.DefaultAccount}}
		},
		mend: func(client.Object) bool { return false },
	}
	s.start("serviceaccount")
	return s
}
