package sync

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
)

// Decryption is what opens the encrypted files of a Source.
type Decryption struct {
	// From says in words where the keys are from.
	From string
	// Keys are texts with age identities.
	Keys []string
	// Without says why there are none, and what to do; empty when there are some.
	Without string
}

const (
	// keySuffix ends the names of the keys of a Secret that hold identities;
	// keyIdentity is one, too.
	keySuffix   = ".agekey"
	keyIdentity = "identity"
)

// decryption reads the keys of a Source out of its Secret, anew for each compile;
// nil when it names none. A Secret that is missing is no fault as long as no file
// is encrypted: the compiler says it at those that are.
func (e *Engine) decryption(ctx context.Context, src *v1alpha1.Source) (*Decryption, error) {
	ref := src.Spec.Decryption
	if ref == nil {
		return nil, nil
	}
	key := types.NamespacedName{Namespace: cmp.Or(ref.SecretNamespace, src.Spec.TargetNamespace), Name: ref.SecretName}
	d := &Decryption{From: "the Secret " + key.String()}
	var s corev1.Secret
	err := e.Resources.Get(ctx, key, &s)
	if apierrors.IsNotFound(err) {
		d.Without = fmt.Sprintf("%s, which spec.decryption of the Source names, is not there: kubectl create secret generic %s --namespace %s --from-file=age.agekey", d.From, key.Name, key.Namespace)
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of encrypted files from %s: %w", d.From, err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Data)) {
		if strings.HasSuffix(name, keySuffix) || name == keyIdentity {
			d.Keys = append(d.Keys, string(s.Data[name]))
		}
	}
	if len(d.Keys) == 0 {
		d.Without = fmt.Sprintf("%s, which spec.decryption of the Source names, has no key whose name ends with %s; put what age-keygen has written into one, such as age%s", d.From, keySuffix, keySuffix)
	}
	return d, nil
}
