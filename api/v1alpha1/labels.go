package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Labels and annotations that Berth writes on the objects it applies from Git.
const (
	// LabelSource is a label: the name of the Source that owns the object.
	LabelSource = "berth.dev/source"
	// AnnotationRevision is the commit that last changed the object.
	AnnotationRevision = "berth.dev/revision"
	// AnnotationOrigin is the place of the object in the repository, as path:line.
	AnnotationOrigin = "berth.dev/origin"
	// AnnotationEncrypted set to "true" marks an object of which something was
	// encrypted in the repository: no plan shows its values.
	AnnotationEncrypted = "berth.dev/encrypted"
	// AnnotationAdopted marks an object that was there before its Source: it is
	// released, not deleted, when the Source no longer holds it.
	AnnotationAdopted = "berth.dev/adopted"
	// AnnotationPrune set to "disabled" keeps an object that its Source no longer holds.
	AnnotationPrune = "berth.dev/prune"
	// AnnotationHandOver names another Source: the object goes over to it when that
	// one holds it, and is not deleted until then.
	AnnotationHandOver = "berth.dev/hand-over"
	// AnnotationReplace set to "allowed" lets a change of an immutable field
	// delete and create the object.
	AnnotationReplace = "berth.dev/replace"
	// AnnotationWave is a whole number, 0 without it: an object is written when
	// those of lower waves are healthy.
	AnnotationWave = "berth.dev/wave"
	// AnnotationHook makes a Job one that runs once for each commit: "pre", before
	// the rest is written, or "post", once that is healthy.
	AnnotationHook = "berth.dev/hook"
	// AnnotationHookCleanup says when the Job of a hook is deleted: "next", the
	// default, when the next commit's hooks run; "succeeded", as soon as it has.
	AnnotationHookCleanup = "berth.dev/hook-cleanup"
	// AnnotationScheduleChanged on a CronJob is when its schedule or time zone was
	// last changed, in RFC 3339: slots before that are not made up for. The server
	// writes it.
	AnnotationScheduleChanged = "berth.dev/schedule-changed"
	// AnnotationClaims on a Node is the folder in which its agent keeps the volumes
	// of the class of Berth. The agent writes it.
	AnnotationClaims = "berth.dev/claims"
	// AnnotationProvisioned on a PersistentVolume says who made it, as in Kubernetes.
	AnnotationProvisioned = "pv.kubernetes.io/provisioned-by"
	// AnnotationRole on a ServiceAccount is what its Pods may do in the API:
	// "viewer" or "admin".
	AnnotationRole = "berth.dev/role"
)

// Hidden reports whether no value of the object, which may be nil, may be shown:
// something of it was encrypted in the repository.
func Hidden(obj metav1.Object) bool {
	return obj != nil && obj.GetAnnotations()[AnnotationEncrypted] == "true"
}

// Annotations that people, or the commands of berth, write on a Source.
const (
	// AnnotationApprove is the full ID of a commit whose deletions beyond
	// spec.maxPrune are approved. With ApproveNow behind it, the commit does not
	// wait for its sync window either.
	AnnotationApprove = "berth.dev/approve"
	// AnnotationSync asks for a look at the repository now; any change of the
	// value does. It is a time by custom.
	AnnotationSync = "berth.dev/sync"
	// AnnotationRollback asks to go back: "TO instead of FROM", the full IDs of a
	// commit that is kept and of the newest one. It holds until there is another
	// newest one, or it is taken off.
	AnnotationRollback = "berth.dev/rollback"
	// AnnotationSuspended suspends the Source, as spec.suspend does, and says in
	// words who did it, when and why.
	AnnotationSuspended = "berth.dev/suspended"
)

// AskedAnnotations are those with which people ask something of a Source. They
// are never in Git.
func AskedAnnotations() []string {
	return []string{AnnotationApprove, AnnotationSync, AnnotationRollback, AnnotationSuspended}
}

// Suspended reports whether the Source is suspended, by its specification or by
// somebody's command.
func (s *Source) Suspended() bool {
	return s.Spec.Suspend || s.Annotations[AnnotationSuspended] != ""
}

// Values of the annotations above.
const (
	PruneDisabled  = "disabled"
	ReplaceAllowed = "allowed"
	HookPre        = "pre"
	HookPost       = "post"
	CleanupNext    = "next"
	CleanupSuccess = "succeeded"
	RoleViewer     = "viewer"
	RoleAdmin      = "admin"
)

// Names of the storage class that is built in.
const (
	// LocalClass keeps volumes in folders of the node that the first Pod runs on.
	LocalClass = "local"
	// LocalProvisioner makes them.
	LocalProvisioner = "berth.dev/local"
	// FinalizerVolume keeps a PersistentVolume until its node has removed the data.
	FinalizerVolume = "berth.dev/local-volume"
)

// ApproveNow stands behind the commit of AnnotationApprove.
const ApproveNow = " now"

// RollbackSeparator stands between the two commits of AnnotationRollback.
const RollbackSeparator = " instead of "

// TrailerAllowPrune is the commit trailer that approves a prune beyond
// spec.maxPrune: "Berth-Allow-Prune: true".
const TrailerAllowPrune = "Berth-Allow-Prune"
