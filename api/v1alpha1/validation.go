package v1alpha1

import (
	"net/url"
	"path"
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
	if n := len(nonEmpty(s.Spec.Ref.Branch, s.Spec.Ref.Tag, s.Spec.Ref.Commit)); n > 1 {
		errs = append(errs, field.Invalid(spec.Child("ref"), s.Spec.Ref, "name one of branch, tag and commit"))
	}
	if p := s.Spec.Path; p != "" && (path.IsAbs(p) || path.Clean(p) != strings.TrimSuffix(p, "/") || strings.HasPrefix(path.Clean(p), "..")) {
		errs = append(errs, field.Invalid(spec.Child("path"), p, "must be a folder inside the repository, such as deploy/production"))
	}
	if s.Spec.Credentials != nil {
		errs = append(errs, field.Forbidden(spec.Child("credentials"), "remotes that need credentials are not fetched yet; push to the built-in endpoint instead"))
	}
	if i := s.Spec.Interval; i != nil && i.Duration < minInterval {
		errs = append(errs, field.Invalid(spec.Child("interval"), i.Duration.String(), "must be 1s or longer"))
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

func validateURL(raw string, at *field.Path) field.ErrorList {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return field.ErrorList{field.Invalid(at, "", "is not a URL")}
	}
	if u.User != nil {
		return field.ErrorList{field.Invalid(at, u.Redacted(), "must not hold a user or password; remotes that need credentials are not fetched yet")}
	}
	switch u.Scheme {
	case "https", "http", "file":
		return nil
	}
	return field.ErrorList{field.NotSupported(at, u.Scheme, []string{"https", "http", "file"})}
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
