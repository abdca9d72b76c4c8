package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Source is a Git repository whose content is the desired state of a part of
// the cluster. It is cluster-scoped. Its name is at most 63 characters, for it
// is a label value on everything that it owns.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type Source struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SourceSpec   `json:"spec,omitempty"`
	Status SourceStatus `json:"status,omitempty"`
}

// SourceList is a list of Sources.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type SourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Source `json:"items"`
}

// SourceSpec says where the desired state is and how it is carried over.
type SourceSpec struct {
	// URL of the repository: https://host/path, ssh://git@host/path or
	// git@host:path, or file:///path. Empty means the built-in endpoint,
	// /git/<name>.git.
	URL string `json:"url,omitempty"`
	// Ref is what is deployed. Default: the branch "main".
	Ref Ref `json:"ref,omitempty"`
	// Path is the folder of the repository that is deployed. Default: its root.
	Path string `json:"path,omitempty"`
	// Interval between two polls of a remote. Default 30s.
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Credentials for the remote.
	Credentials *Credentials `json:"credentials,omitempty"`
	// Webhook lets the server of the repository say that there is something new:
	// POST /berth/v1/hooks/<name>. It only ever hastens a poll.
	Webhook *Webhook `json:"webhook,omitempty"`
	// TargetNamespace is given to namespaced objects without a namespace.
	// Default: "default".
	TargetNamespace string `json:"targetNamespace,omitempty"`
	// Namespaces that the Source may touch; * stands for any characters.
	// Empty means all.
	Namespaces []string `json:"namespaces,omitempty"`
	// Kinds that the Source may hold, such as Deployment. Empty means all.
	Kinds []string `json:"kinds,omitempty"`
	// Verify wants the commit, or the tag that names it, to be signed.
	Verify *Verify `json:"verify,omitempty"`
	// Submodules fetches the repositories that the path refers to. Without it a
	// submodule within the path is an error.
	Submodules bool `json:"submodules,omitempty"`
	// LFS fetches the files within the path that are kept in Git LFS. Without it
	// such a file is an error.
	LFS bool `json:"lfs,omitempty"`
	// MaxSize is what the repository may take of the disk. Default 1Gi.
	MaxSize *resource.Quantity `json:"maxSize,omitempty"`
	// Decryption names the Secret with the keys of encrypted files.
	Decryption *Decryption `json:"decryption,omitempty"`
	// DependsOn are Sources that must be Ready before a commit of this one is
	// applied.
	DependsOn []string `json:"dependsOn,omitempty"`
	// SyncWindows say when commits are applied. A Deny window that is open keeps
	// them back; with Allow windows, one of those must be open.
	SyncWindows []SyncWindow `json:"syncWindows,omitempty"`
	// Notifications say whom to tell of a failure, and of the recovery from it.
	Notifications []Notification `json:"notifications,omitempty"`
	// Prune deletes what the Source owns and its content no longer holds.
	// Default true.
	Prune *bool `json:"prune,omitempty"`
	// MaxPrune is how many deletions, as a number or a percentage of what the
	// Source owns, go ahead without approval. Default 50%.
	MaxPrune *intstr.IntOrString `json:"maxPrune,omitempty"`
	// HealthTimeout is how long a commit may take to become healthy.
	// Default 10m.
	HealthTimeout *metav1.Duration `json:"healthTimeout,omitempty"`
	// Rollback says what happens to a commit that does not become healthy within
	// HealthTimeout: None, the default, leaves it; Automatic goes back to the last
	// healthy one. The commit is not applied again until there is a newer one.
	Rollback string `json:"rollback,omitempty"`
	// Compile bounds what evaluating the repository's CUE may cost.
	Compile *CompileLimits `json:"compile,omitempty"`
	// Suspend stops fetching and applying; what runs goes on.
	Suspend bool `json:"suspend,omitempty"`
}

// CompileLimits are those of the evaluation of each folder of CUE.
type CompileLimits struct {
	// Memory that one evaluation may use. Default 1Gi.
	Memory *resource.Quantity `json:"memory,omitempty"`
	// Timeout is how long one evaluation may take. Default 30s.
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// Ref names a commit of a repository. At most one field is set.
type Ref struct {
	Branch string `json:"branch,omitempty"`
	Tag    string `json:"tag,omitempty"`
	// Semver is a range of versions, such as ">=1.4 <2" or "~1.4": the tag with
	// the highest version in it, with or without a v before it. Pre-releases
	// count only if the range names one.
	Semver string `json:"semver,omitempty"`
	Commit string `json:"commit,omitempty"`
}

// Credentials names the Secret that opens a remote.
type Credentials struct {
	// SecretName is a Secret with username and password, or token, or githubAppID,
	// githubAppInstallationID and githubAppPrivateKey, for https; or
	// ssh-privatekey and known_hosts for ssh. ca.crt holds the certificates,
	// as PEM, that an https remote is trusted by besides the machine's.
	SecretName string `json:"secretName"`
	// SecretNamespace is where the Secret is. Default: spec.targetNamespace.
	SecretNamespace string `json:"secretNamespace,omitempty"`
	// InsecureIgnoreHostKey takes any host for the ssh remote, without known_hosts.
	// Whoever is on the way there can then read and change what is deployed.
	InsecureIgnoreHostKey bool `json:"insecureIgnoreHostKey,omitempty"`
}

// Verify says whose signature is trusted. Both fields hold public keys, so they
// stand in the Source. One signature that is made by one of them is enough.
type Verify struct {
	// AllowedSigners are lines of OpenSSH's allowed_signers file, as ssh-keygen(1)
	// describes them: principals, options and a public key.
	AllowedSigners string `json:"allowedSigners,omitempty"`
	// OpenPGPKeys are public keys in ASCII armor.
	OpenPGPKeys string `json:"openPGPKeys,omitempty"`
}

// Decryption names the Secret with the age identities that open files encrypted
// with SOPS or age: each key whose name ends with .agekey, and the key identity.
type Decryption struct {
	SecretName string `json:"secretName"`
	// SecretNamespace is where the Secret is. Default: spec.targetNamespace.
	SecretNamespace string `json:"secretNamespace,omitempty"`
}

// SyncWindow is a time that comes again and again.
type SyncWindow struct {
	// Kind is Allow or Deny.
	Kind string `json:"kind"`
	// Schedule is when the window opens, in the five fields of cron.
	Schedule string `json:"schedule"`
	// Duration is how long it stays open.
	Duration metav1.Duration `json:"duration"`
	// TimeZone of the schedule, such as Europe/Berlin. Default UTC.
	TimeZone string `json:"timeZone,omitempty"`
}

// Notification is a receiver of messages.
type Notification struct {
	// Type of the message's body: Generic, the default, is a JSON object with the
	// fields source, commit, state, reason and message; Slack is what Slack and
	// those compatible with it take.
	Type string `json:"type,omitempty"`
	// SecretName is a Secret with the key url, and for Generic optionally the key
	// secret, which the body is signed with: header X-Berth-Signature-256.
	SecretName string `json:"secretName"`
	// SecretNamespace is where the Secret is. Default: spec.targetNamespace.
	SecretNamespace string `json:"secretNamespace,omitempty"`
}

// Webhook names the Secret that calls are signed with.
type Webhook struct {
	// SecretName is a Secret with the key secret.
	SecretName string `json:"secretName"`
	// SecretNamespace is where the Secret is. Default: spec.targetNamespace.
	SecretNamespace string `json:"secretNamespace,omitempty"`
}

// SourceStatus is what Berth found and did.
type SourceStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Observed is the newest commit that was fetched or pushed.
	Observed *Commit `json:"observed,omitempty"`
	// Applied is the commit whose content is the desired state of the cluster.
	Applied *Commit `json:"applied,omitempty"`
	// Healthy is the last commit that became healthy.
	Healthy *Commit `json:"healthy,omitempty"`
	// Objects counts what the Source owns, by kind. The objects themselves
	// carry the label berth.dev/source and the annotation berth.dev/origin.
	Objects map[string]int32 `json:"objects,omitempty"`
	// History of the commits that were applied, the newest first: the last 20.
	History []AppliedCommit `json:"history,omitempty"`
	// Hooks that ran, the newest first: the last 40.
	Hooks []HookRun `json:"hooks,omitempty"`
	// RolledBack is set while the newest commit is not applied because it was
	// rolled back.
	RolledBack *RolledBack `json:"rolledBack,omitempty"`
	// Conditions: Fetched, Verified, Compiled, Applied, Healthy, Ready.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Timeline of the last change, one entry per stage that was reached.
	Timeline []Stage `json:"timeline,omitempty"`
	// Diagnostics of the observed commit: the errors that keep it from being
	// applied, and warnings.
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

// Commit is a commit as people speak of it.
type Commit struct {
	ID      string      `json:"id"`
	Author  string      `json:"author,omitempty"`
	Email   string      `json:"email,omitempty"`
	Subject string      `json:"subject,omitempty"`
	Time    metav1.Time `json:"time,omitempty"`
	// SignedBy says whose signature was found and trusted, where spec.verify
	// wants one.
	SignedBy string `json:"signedBy,omitempty"`
}

// AppliedCommit is a commit that was the desired state of the cluster, or is.
type AppliedCommit struct {
	Commit `json:",inline"`
	// Applied is when it was applied first, and Healthy when it became healthy.
	Applied metav1.Time  `json:"applied"`
	Healthy *metav1.Time `json:"healthy,omitempty"`
	// Changes says what applying it did, in a few words.
	Changes string `json:"changes,omitempty"`
	// Failed says why it did not become healthy in time.
	Failed string `json:"failed,omitempty"`
	// Kept says that its objects are kept: berth rollback can go back to it.
	Kept bool `json:"kept,omitempty"`
}

// RolledBack is a commit that is not applied any more, and the one in its place.
type RolledBack struct {
	// From is the full ID of the commit that is not applied.
	From string `json:"from"`
	// To is the full ID of the commit that is applied in its place.
	To string `json:"to"`
	// Asked is true when somebody asked for it, and false when the commit did not
	// become healthy in time.
	Asked bool `json:"asked,omitempty"`
	// Reason in words.
	Reason string `json:"reason,omitempty"`
}

// Values of SourceSpec.Rollback.
const (
	RollbackNone      = "None"
	RollbackAutomatic = "Automatic"
)

// Values of SyncWindow.Kind.
const (
	WindowAllow = "Allow"
	WindowDeny  = "Deny"
)

// Values of Notification.Type.
const (
	NotificationGeneric = "Generic"
	NotificationSlack   = "Slack"
)

// HookRun is a Job that ran before or after a commit was applied.
type HookRun struct {
	// Commit is its full ID.
	Commit string `json:"commit"`
	// Phase is pre or post.
	Phase string `json:"phase"`
	// Namespace and Name of the Job in the repository; the Job in the cluster has
	// the commit in its name.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Succeeded is set when it ended well, Failed says why it did not. Neither:
	// it runs.
	Succeeded bool   `json:"succeeded,omitempty"`
	Failed    string `json:"failed,omitempty"`
}

// Stage is one step of a commit's way into the cluster.
type Stage struct {
	// Name is one of the Stage constants.
	Name string           `json:"name"`
	Time metav1.MicroTime `json:"time"`
	// Message says what the stage did, in a few words.
	Message string `json:"message,omitempty"`
}

// Stages of a timeline, in their order.
const (
	StagePushed   = "pushed"
	StageFetched  = "fetched"
	StageCompiled = "compiled"
	// StageWave has the number of a wave behind it, as in "wave 1": it was written.
	StageWave      = "wave"
	StageApplied   = "applied"
	StageScheduled = "scheduled"
	StageStarted   = "started"
	StageReady     = "ready"
)

// Diagnostic is an error or a warning at a place in the repository.
type Diagnostic struct {
	// Severity is "error" or "warning".
	Severity string `json:"severity"`
	// Path in the repository; empty when no file is at fault.
	Path string `json:"path,omitempty"`
	// Line and Column count from 1; 0 is unknown.
	Line   int32 `json:"line,omitempty"`
	Column int32 `json:"column,omitempty"`
	// Object is kind/name, where it is known.
	Object string `json:"object,omitempty"`
	// Field is the path of the field, such as spec.replicas.
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// Condition types of a Source.
const (
	ConditionFetched  = "Fetched"
	ConditionVerified = "Verified"
	ConditionCompiled = "Compiled"
	ConditionApplied  = "Applied"
	ConditionHealthy  = "Healthy"
	ConditionReady    = "Ready"
)

// Reasons of a Source's conditions.
const (
	ReasonSucceeded       = "Succeeded"
	ReasonProgressing     = "Progressing"
	ReasonFetchFailed     = "FetchFailed"
	ReasonEmptyRepository = "EmptyRepository"
	ReasonRefNotFound     = "RefNotFound"
	ReasonCompileFailed   = "CompileFailed"
	ReasonConflict        = "Conflict"
	ReasonApplyFailed     = "ApplyFailed"
	ReasonPruneHeld       = "PruneHeld"
	ReasonDegraded        = "Degraded"
	ReasonTimeout         = "Timeout"
	ReasonSuspended       = "Suspended"
	ReasonRolledBack      = "RolledBack"
	ReasonNotKept         = "RevisionNotKept"
	ReasonHistoryRewrite  = "HistoryRewritten"
	ReasonVerifyFailed    = "VerifyFailed"
	ReasonTooLarge        = "TooLarge"
	ReasonDependency      = "DependencyNotReady"
	ReasonOutsideWindow   = "OutsideSyncWindow"
	ReasonHookFailed      = "HookFailed"
	ReasonWave            = "WaitsForWave"
)
