package upstream

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
)

func claimRules() rules {
	return rulesOf(
		func(c *core.PersistentVolumeClaim) field.ErrorList {
			return corevalidation.ValidatePersistentVolumeClaim(c, corevalidation.ValidationOptionsForPersistentVolumeClaim(c, nil))
		},
		func(c, old *core.PersistentVolumeClaim) field.ErrorList {
			return corevalidation.ValidatePersistentVolumeClaimUpdate(c, old, corevalidation.ValidationOptionsForPersistentVolumeClaim(c, old))
		},
		func(c, old *core.PersistentVolumeClaim) field.ErrorList {
			return corevalidation.ValidatePersistentVolumeClaimStatusUpdate(c, old, corevalidation.ValidationOptionsForPersistentVolumeClaim(c, old))
		})
}

func volumeRules() rules {
	return rulesOf(
		func(v *core.PersistentVolume) field.ErrorList {
			return corevalidation.ValidatePersistentVolume(v, corevalidation.ValidationOptionsForPersistentVolume(v, nil))
		},
		func(v, old *core.PersistentVolume) field.ErrorList {
			o := corevalidation.ValidationOptionsForPersistentVolume(v, old)
			return append(corevalidation.ValidatePersistentVolume(v, o), corevalidation.ValidatePersistentVolumeUpdate(v, old, o)...)
		},
		corevalidation.ValidatePersistentVolumeStatusUpdate)
}

func networkPolicyRules() rules {
	return rulesOf(
		func(p *networking.NetworkPolicy) field.ErrorList {
			return networkingvalidation.ValidateNetworkPolicy(p, networkingvalidation.ValidationOptionsForNetworking(p, nil))
		},
		func(p, old *networking.NetworkPolicy) field.ErrorList {
			return networkingvalidation.ValidateNetworkPolicyUpdate(p, old, networkingvalidation.ValidationOptionsForNetworking(p, old))
		}, nil)
}

func budgetRules() rules {
	validate := func(b *policy.PodDisruptionBudget) field.ErrorList {
		return policyvalidation.ValidatePodDisruptionBudget(b, policyvalidation.PodDisruptionBudgetValidationOptions{})
	}
	return rulesOf(validate,
		func(b, old *policy.PodDisruptionBudget) field.ErrorList {
			return append(validate(b), corevalidation.ValidateObjectMetaUpdate(&b.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		},
		func(b, old *policy.PodDisruptionBudget) field.ErrorList {
			return policyvalidation.ValidatePodDisruptionBudgetStatusUpdate(b.Status, old.Status, field.NewPath("status"), schema.GroupVersion{Group: "policy", Version: "v1"})
		})
}

func storageClassRules() rules {
	return rulesOf(storagevalidation.ValidateStorageClass,
		func(c, old *storage.StorageClass) field.ErrorList {
			return append(storagevalidation.ValidateStorageClass(c), storagevalidation.ValidateStorageClassUpdate(c, old)...)
		}, nil)
}
