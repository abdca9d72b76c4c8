package v1alpha1

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// minInterval is the shortest time between two polls of a remote.
const minInterval = time.Second

// Validate says what is wrong with a defaulted Source.
func Validate(s *Source) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Label(s.Name) {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), s.Name, msg))
	}
	spec := field.NewPath("spec")
	errs = append(errs, validateURL(s.Spec.URL, spec.Child("url"))...)
	if n := len(nonEmpty(s.Spec.Ref.Branch, s.Spec.Ref.Tag, s.Spec.Ref.Semver, s.Spec.Ref.Commit)); n > 1 {
		errs = append(errs, field.Invalid(spec.Child("ref"), s.Spec.Ref, "name one of branch, tag, semver and commit"))
	}
	if s.Spec.Ref.Semver != "" && s.Spec.URL == "" {
		errs = append(errs, field.Forbidden(spec.Child("ref", "semver"), "versions are looked for in the tags of a remote; name its url, or name a branch"))
	}
	if p := s.Spec.Path; p != "" && (path.IsAbs(p) || path.Clean(p) != strings.TrimSuffix(p, "/") || strings.HasPrefix(path.Clean(p), "..")) {
		errs = append(errs, field.Invalid(spec.Child("path"), p, "must be a folder inside the repository, such as deploy/production"))
	}
	if c := s.Spec.Credentials; c != nil {
		errs = append(errs, validateCredentials(c, s.Spec.URL, spec.Child("credentials"))...)
	}
	if i := s.Spec.Interval; i != nil && i.Duration < minInterval {
		errs = append(errs, field.Invalid(spec.Child("interval"), i.Duration.String(), "must be 1s or longer"))
	}
	if h := s.Spec.Webhook; h != nil {
		errs = append(errs, validateSecret(h.SecretName, h.SecretNamespace, spec.Child("webhook"))...)
		if s.Spec.URL == "" {
			errs = append(errs, field.Forbidden(spec.Child("webhook"), "a push to the built-in endpoint is noticed at once; only a remote needs one"))
		}
	}
	if r := s.Spec.Rollback; r != "" && r != RollbackNone && r != RollbackAutomatic {
		errs = append(errs, field.NotSupported(spec.Child("rollback"), r, []string{RollbackNone, RollbackAutomatic}))
	}
	if v := s.Spec.Verify; v != nil && v.AllowedSigners == "" && v.OpenPGPKeys == "" {
		errs = append(errs, field.Required(spec.Child("verify"), "name the keys that are trusted: allowedSigners or openPGPKeys"))
	}
	const remoteOnly = "only of a remote; name its url, or put the files into the repository"
	if s.Spec.Submodules && s.Spec.URL == "" {
		errs = append(errs, field.Forbidden(spec.Child("submodules"), remoteOnly))
	}
	if s.Spec.LFS && s.Spec.URL == "" {
		errs = append(errs, field.Forbidden(spec.Child("lfs"), remoteOnly))
	}
	if m := s.Spec.MaxSize; m != nil && m.Sign() <= 0 {
		errs = append(errs, field.Invalid(spec.Child("maxSize"), m.String(), "must be more than 0, such as 1Gi"))
	}
	if d := s.Spec.Decryption; d != nil {
		errs = append(errs, validateSecret(d.SecretName, d.SecretNamespace, spec.Child("decryption"))...)
	}
	errs = append(errs, validateDependencies(s, spec.Child("dependsOn"))...)
	for i := range s.Spec.SyncWindows {
		errs = append(errs, validateWindow(&s.Spec.SyncWindows[i], spec.Child("syncWindows").Index(i))...)
	}
	for i, n := range s.Spec.Notifications {
		at := spec.Child("notifications").Index(i)
		if n.Type != NotificationGeneric && n.Type != NotificationSlack {
			errs = append(errs, field.NotSupported(at.Child("type"), n.Type, []string{NotificationGeneric, NotificationSlack}))
		}
		errs = append(errs, validateSecret(n.SecretName, n.SecretNamespace, at)...)
	}
	if c := s.Spec.Compile; c != nil {
		errs = append(errs, validateLimits(c, spec.Child("compile"))...)
	}
	for _, msg := range validation.IsDNS1123Label(s.Spec.TargetNamespace) {
		errs = append(errs, field.Invalid(spec.Child("targetNamespace"), s.Spec.TargetNamespace, msg))
	}
	if m := s.Spec.MaxPrune; m != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(m, 100, true); err != nil || n < 0 {
			errs = append(errs, field.Invalid(spec.Child("maxPrune"), m.String(), "must be a number or a percentage, such as 10 or 50%"))
		}
	}
	return errs
}

func validateDependencies(s *Source, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range s.Spec.DependsOn {
		switch {
		case name == s.Name:
			errs = append(errs, field.Invalid(at.Index(i), name, "a Source cannot wait for itself"))
		case seen[name]:
			errs = append(errs, field.Duplicate(at.Index(i), name))
		}
		seen[name] = true
		for _, msg := range validation.IsDNS1123Label(name) {
			errs = append(errs, field.Invalid(at.Index(i), name, msg))
		}
	}
	return errs
}

func validateWindow(w *SyncWindow, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if w.Kind != WindowAllow && w.Kind != WindowDeny {
		errs = append(errs, field.NotSupported(at.Child("kind"), w.Kind, []string{WindowAllow, WindowDeny}))
	}
	if _, err := w.Times(); err != nil {
		errs = append(errs, field.Invalid(at, w.Schedule, err.Error()))
	}
	if w.Duration.Duration < time.Minute || w.Duration.Duration > 7*24*time.Hour {
		errs = append(errs, field.Invalid(at.Child("duration"), w.Duration.Duration.String(), "must be from 1m to 168h"))
	}
	return errs
}

// The least and the most that an evaluation may be given.
const (
	minCompileMemory  = 128 << 20
	maxCompileMemory  = 64 << 30
	minCompileTimeout = time.Second
	maxCompileTimeout = 10 * time.Minute
)

func validateLimits(c *CompileLimits, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m := c.Memory; m != nil && (m.Value() < minCompileMemory || m.Value() > maxCompileMemory) {
		errs = append(errs, field.Invalid(at.Child("memory"), m.String(), "must be from 128Mi to 64Gi"))
	}
	if t := c.Timeout; t != nil && (t.Duration < minCompileTimeout || t.Duration > maxCompileTimeout) {
		errs = append(errs, field.Invalid(at.Child("timeout"), t.Duration.String(), "must be from 1s to 10m"))
	}
	return errs
}

func validateCredentials(c *Credentials, raw string, at *field.Path) field.ErrorList {
	errs := validateSecret(c.SecretName, c.SecretNamespace, at)
	u, err := ParseURL(raw)
	if raw == "" || err == nil && u.Scheme == "file" {
		errs = append(errs, field.Forbidden(at, "only https and ssh remotes take credentials"))
	}
	if c.InsecureIgnoreHostKey && err == nil && u.Scheme != "ssh" {
		errs = append(errs, field.Forbidden(at.Child("insecureIgnoreHostKey"), "only ssh remotes have host keys"))
	}
	return errs
}

func validateSecret(name, namespace string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		errs = append(errs, field.Invalid(at.Child("secretName"), name, msg))
	}
	if namespace != "" {
		for _, msg := range validation.IsDNS1123Label(namespace) {
			errs = append(errs, field.Invalid(at.Child("secretNamespace"), namespace, msg))
		}
	}
	return errs
}

// scpLike is how git writes an ssh remote without a scheme: user@host:path.
var scpLike = regexp.MustCompile(`^([A-Za-z0-9._-]+)@([A-Za-z0-9.-]+):([^/].*|/.*)$`)

// ParseURL reads the URL of a repository. user@host:path is an ssh URL.
func ParseURL(raw string) (*url.URL, error) {
	if m := scpLike.FindStringSubmatch(raw); m != nil {
		return &url.URL{Scheme: "ssh", User: url.User(m[1]), Host: m[2], Path: "/" + strings.TrimPrefix(m[3], "/")}, nil
	}
	return url.Parse(raw)
}

func validateURL(raw string, at *field.Path) field.ErrorList {
	if raw == "" {
		return nil
	}
	u, err := ParseURL(raw)
	if err != nil {
		return field.ErrorList{field.Invalid(at, "", "is not a URL")}
	}
	_, password := u.User.Password()
	if password || u.User != nil && u.Scheme != "ssh" {
		return field.ErrorList{field.Invalid(at, u.Redacted(), "must not hold a user or password; put them into a Secret and name it in spec.credentials")}
	}
	switch u.Scheme {
	case "https", "http", "ssh":
		if u.Host == "" {
			return field.ErrorList{field.Invalid(at, u.Redacted(), "names no host")}
		}
		return nil
	case "file":
		return nil
	}
	return field.ErrorList{field.NotSupported(at, u.Scheme, []string{"https", "ssh", "http", "file"})}
}

func nonEmpty(values ...string) []string {
	var out []string
	for _, v := range values {
		if v != "" {
			out = append(out, v)
		}
	}
	return out
}
