package v1alpha1

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Source)
		want   string // a part of the error; empty: valid
	}{
		"defaults":          {func(*Source) {}, ""},
		"remote":            {func(s *Source) { s.Spec.URL = "https://git.example.org/x.git" }, ""},
		"name":              {func(s *Source) { s.Name = "My_Shop" }, "metadata.name"},
		"scheme":            {func(s *Source) { s.Spec.URL = "ext::sh" }, "spec.url"},
		"password in URL":   {func(s *Source) { s.Spec.URL = "https://a:hunter2@example.org/x" }, "must not hold a user or password"},
		"ssh remote":        {func(s *Source) { s.Spec.URL = "ssh://git@git.example.org/x.git" }, ""},
		"ssh as git has it": {func(s *Source) { s.Spec.URL = "git@git.example.org:team/x.git" }, ""},
		"password for ssh":  {func(s *Source) { s.Spec.URL = "ssh://git:hunter2@example.org/x" }, "must not hold a user or password"},
		"no host":           {func(s *Source) { s.Spec.URL = "https:///x" }, "names no host"},
		"with credentials": {func(s *Source) {
			s.Spec.URL, s.Spec.Credentials = "https://example.org/x", &Credentials{SecretName: "x", SecretNamespace: "keys"}
		}, ""},
		"malformed secret name": {func(s *Source) {
			s.Spec.URL, s.Spec.Credentials = "https://example.org/x", &Credentials{SecretName: "X_"}
		}, "spec.credentials.secretName"},
		"host keys of https": {func(s *Source) {
			s.Spec.URL, s.Spec.Credentials = "https://example.org/x", &Credentials{SecretName: "x", InsecureIgnoreHostKey: true}
		}, "only ssh remotes have host keys"},
		"webhook of a remote":             {func(s *Source) { s.Spec.URL, s.Spec.Webhook = "https://example.org/x", &Webhook{SecretName: "x"} }, ""},
		"webhook of our own":              {func(s *Source) { s.Spec.Webhook = &Webhook{SecretName: "x"} }, "spec.webhook"},
		"rollback":                        {func(s *Source) { s.Spec.Rollback = RollbackAutomatic }, ""},
		"another word":                    {func(s *Source) { s.Spec.Rollback = "auto" }, "spec.rollback"},
		"versions of a remote":            {func(s *Source) { s.Spec.URL, s.Spec.Ref = "https://example.org/x", Ref{Semver: "~1"} }, ""},
		"versions of our own":             {func(s *Source) { s.Spec.Ref = Ref{Semver: "~1"} }, "spec.ref.semver"},
		"credentials of our own":          {func(s *Source) { s.Spec.Credentials = &Credentials{SecretName: "x"} }, "spec.credentials"},
		"two refs":                        {func(s *Source) { s.Spec.Ref = Ref{Branch: "a", Tag: "b"} }, "spec.ref"},
		"path leaves":                     {func(s *Source) { s.Spec.Path = "../x" }, "spec.path"},
		"too often":                       {func(s *Source) { s.Spec.Interval = &metav1.Duration{Duration: time.Millisecond} }, "spec.interval"},
		"keys":                            {func(s *Source) { s.Spec.Verify = &Verify{AllowedSigners: "x"} }, ""},
		"no keys":                         {func(s *Source) { s.Spec.Verify = &Verify{} }, "allowedSigners or openPGPKeys"},
		"submodules of our own":           {func(s *Source) { s.Spec.Submodules = true }, "spec.submodules: Forbidden: only of a remote"},
		"large files of our own":          {func(s *Source) { s.Spec.LFS = true }, "spec.lfs: Forbidden: only of a remote"},
		"large files of a remote":         {func(s *Source) { s.Spec.URL, s.Spec.LFS, s.Spec.Submodules = "https://example.org/x", true, true }, ""},
		"a Secret of keys without a name": {func(s *Source) { s.Spec.Decryption = &Decryption{} }, "spec.decryption.secretName"},
		"waits for itself":                {func(s *Source) { s.Spec.DependsOn = []string{"shop"} }, "cannot wait for itself"},
		"waits twice":                     {func(s *Source) { s.Spec.DependsOn = []string{"a", "a"} }, "spec.dependsOn[1]"},
		"window": {func(s *Source) {
			s.Spec.SyncWindows = []SyncWindow{{Kind: WindowDeny, Schedule: "0 0 30 2 *", Duration: metav1.Duration{Duration: time.Hour}}}
		}, "never comes"},
		"window's zone": {func(s *Source) {
			s.Spec.SyncWindows = []SyncWindow{{Kind: WindowDeny, Schedule: "0 0 * * *", TimeZone: "Berlin", Duration: metav1.Duration{Duration: time.Hour}}}
		}, "Europe/Berlin"},
		"window's length": {func(s *Source) {
			s.Spec.SyncWindows = []SyncWindow{{Kind: WindowDeny, Schedule: "0 0 * * *"}}
		}, "duration"},
		"receiver":            {func(s *Source) { s.Spec.Notifications = []Notification{{Type: "Mail", SecretName: "x"}} }, "notifications[0].type"},
		"folder with a slash": {func(s *Source) { s.Spec.Path = "deploy/" }, ""},
	} {
		s := &Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
		SetDefaults(s)
		c.change(s)
		got := ""
		if errs := Validate(s); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Contains(got, "hunter2") {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
