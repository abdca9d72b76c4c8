package signature_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/sources/git"
	"berth.dev/berth/sources/signature"
)

// committed is when every commit of these tests is made.
const committed = "2026-06-15T12:00:00Z"

// repository is one that git itself writes and signs.
type repository struct {
	t    *testing.T
	dir  string
	keys string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	t.Setenv("GNUPGHOME", "")
	for _, role := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+role+"_NAME", "Alice")
		t.Setenv("GIT_"+role+"_EMAIL", "alice@example.org")
		t.Setenv("GIT_"+role+"_DATE", committed)
	}
	r := &repository{t: t, dir: t.TempDir(), keys: t.TempDir()}
	r.run("git", "init", "-q", "-b", "main")
	r.run("git", "config", "gpg.format", "ssh")
	return r
}

func (r *repository) run(name string, args ...string) string {
	r.t.Helper()
	return r.pipe("", name, args...)
}

func (r *repository) pipe(in, name string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = r.dir
	cmd.Stdin = strings.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, &errs)
	}
	return out.String()
}

// key makes a key with ssh-keygen and returns its public half.
func (r *repository) key(name, kind string) string {
	r.t.Helper()
	file := filepath.Join(r.keys, name)
	r.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", file)
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(public))
}

// commit makes a commit, signed by the key of that name if it has one.
func (r *repository) commit(key string) {
	r.t.Helper()
	args := []string{"commit", "-q", "--allow-empty", "-m", "A change"}
	if key != "" {
		args = append([]string{"-c", "user.signingKey=" + filepath.Join(r.keys, key)}, append(args, "-S")...)
	}
	r.run("git", args...)
}

func (r *repository) revision(ref v1alpha1.Ref) revision.Revision {
	r.t.Helper()
	f := git.New(git.Options{Dir: r.t.TempDir(), AllowFile: true})
	rev, err := f.Fetch(r.t.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.SourceSpec{URL: "file://" + r.dir, Ref: ref}})
	if err != nil {
		r.t.Fatal(err)
	}
	return rev
}

// check verifies, and compares with what is wanted: who signed, or words of the error.
func (r *repository) check(policy v1alpha1.Verify, rev revision.Revision, who, fault string) {
	r.t.Helper()
	got, err := signature.Verify(policy, rev, time.Date(2026, 6, 16, 0, 0, 0, 0, time.UTC))
	if fault == "" {
		if err != nil || !strings.HasPrefix(got, who) {
			r.t.Errorf("signed by %q, %v; want %q", got, err, who)
		}
		return
	}
	var untrusted *signature.Error
	if !errors.As(err, &untrusted) || !strings.Contains(err.Error(), fault) || !strings.Contains(err.Error(), rev.Commit[:10]) {
		r.t.Errorf("signed by %q, %v; want %q", got, err, fault)
	}
}

func TestSSHSignatures(t *testing.T) {
	r := newRepository(t)
	keys := map[string]string{}
	for name, kind := range map[string]string{"ed": "ed25519", "rsa": "rsa", "ecdsa": "ecdsa", "other": "ed25519"} {
		keys[name] = r.key(name, kind)
	}
	main := v1alpha1.Ref{Branch: "main"}
	for _, c := range []struct{ name, key, signers, who, fault string }{
		{"ed25519", "ed", "alice@example.org " + keys["ed"], "alice@example.org, ED25519 SHA256:", ""},
		{"rsa", "rsa", "# keys\n\nalice@example.org,bob@example.org " + keys["rsa"] + " a comment", "alice@example.org,bob@example.org, RSA SHA256:", ""},
		{"ecdsa", "ecdsa", `"alice@example.org" namespaces="file,git" ` + keys["ecdsa"], "alice@example.org, ECDSA SHA256:", ""},
		{"one of several", "ed", "bob " + keys["rsa"] + "\nalice " + keys["ed"], "alice, ED25519", ""},
		{"another's", "other", "alice " + keys["ed"], "", "is signed by the key ED25519 SHA256:"},
		{"another's is named", "other", "alice " + keys["ed"], "", "which is not allowed"},
		{"unsigned", "", "alice " + keys["ed"], "", "it is not signed, and spec.verify wants a signature"},
		{"for another purpose", "ed", `alice namespaces="file" ` + keys["ed"], "", "(line 1) does not allow for the namespace git"},
		{"not for git", "ed", `alice namespaces="*,!git" ` + keys["ed"], "", "does not allow for the namespace git"},
		{"in its time", "ed", `alice valid-after="20260101",valid-before="20270101Z" ` + keys["ed"], "alice, ", ""},
		{"expired", "ed", `alice valid-before="20260615115959Z" ` + keys["ed"], "", "is signed at 2026-06-15 12:00:00 UTC by the key ED25519 SHA256:"},
		{"expired at", "ed", `alice valid-before="202606151200" ` + keys["ed"], "", "which expired at 2026-06-15 12:00:00 UTC"},
		{"not yet valid", "ed", `alice valid-after="20260616" ` + keys["ed"], "", "valid only from 2026-06-16"},
		{"expired, and named again", "ed", `alice valid-before="20200101" ` + keys["ed"] + "\nnew " + keys["ed"], "new, ", ""},
		{"an authority", "ed", "# all\n*@example.org cert-authority " + keys["ed"], "", "spec.verify.allowedSigners, line 2: cert-authority is not supported"},
		{"an unknown option", "ed", "alice touch-required " + keys["ed"], "", "line 1: \"touch-required\" is neither"},
		{"no key", "ed", "alice ssh-ed25519", "", "line 1: a line must be like"},
		{"half a key", "ed", "alice " + keys["ed"][:40], "", "line 1: the key is no"},
		{"nobody", "ed", "# nobody", "", "has no line with a key"},
		{"a time that is none", "ed", `alice valid-after="soon" ` + keys["ed"], "", `"soon" is no time`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			r.commit(c.key)
			r.check(v1alpha1.Verify{AllowedSigners: c.signers}, r.revision(main), c.who, c.fault)
		})
	}
}

// TestChangedAfterSigning: the same signature over another message, another tree
// and another parent.
func TestChangedAfterSigning(t *testing.T) {
	r := newRepository(t)
	policy := v1alpha1.Verify{AllowedSigners: "alice " + r.key("ed", "ed25519")}
	if err := os.WriteFile(filepath.Join(r.dir, "a.yaml"), []byte("a: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.run("git", "add", "-A")
	r.commit("ed")
	raw := r.run("git", "cat-file", "commit", "HEAD")
	r.check(policy, r.revision(v1alpha1.Ref{Branch: "main"}), "alice", "")
	empty := strings.TrimSpace(r.pipe("", "git", "hash-object", "-t", "tree", "-w", "--stdin"))
	end := strings.Index(raw, "\n")
	for name, changed := range map[string]string{
		"message": strings.Replace(raw, "A change", "Another change", 1),
		"tree":    "tree " + empty + raw[end:],
		"parent":  raw[:end] + "\nparent " + strings.TrimSpace(r.run("git", "rev-parse", "HEAD")) + raw[end:],
	} {
		hash := strings.TrimSpace(r.pipe(changed, "git", "hash-object", "-t", "commit", "-w", "--stdin"))
		r.run("git", "update-ref", "refs/heads/changed", hash)
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.check(policy, r.revision(v1alpha1.Ref{Branch: "changed"}), "", "the commit names the key ED25519 SHA256:")
			r.check(policy, r.revision(v1alpha1.Ref{Branch: "changed"}), "", "the signature does not match the content")
		})
	}
	t.Run("a tree within the signature", func(t *testing.T) {
		hidden := "tree " + empty + "\n" + strings.Replace(raw[end+1:], "gpgsig ", "gpgsig tree "+empty+"\n ", 1)
		hash := strings.TrimSpace(r.pipe(hidden, "git", "hash-object", "--literally", "-t", "commit", "-w", "--stdin"))
		r.run("git", "update-ref", "refs/heads/changed", hash)
		r.t = t
		r.check(policy, r.revision(v1alpha1.Ref{Branch: "changed"}), "", "has a signature that is neither of SSH nor of OpenPGP")
	})
}

// TestSignedTag: a signed tag vouches for its commit, under its own name alone.
func TestSignedTag(t *testing.T) {
	r := newRepository(t)
	policy := v1alpha1.Verify{AllowedSigners: "alice " + r.key("ed", "ed25519")}
	r.commit("")
	r.run("git", "-c", "user.signingKey="+filepath.Join(r.keys, "ed"), "tag", "-s", "-m", "Version 1", "v1")
	r.run("git", "tag", "-a", "-m", "Version 2", "v2")
	r.check(policy, r.revision(v1alpha1.Ref{Tag: "v1"}), "alice, ED25519", "")
	r.check(policy, r.revision(v1alpha1.Ref{Semver: "1.x"}), "alice, ED25519", "")
	r.check(policy, r.revision(v1alpha1.Ref{Tag: "v2"}), "", "it is not signed")
	r.check(policy, r.revision(v1alpha1.Ref{Branch: "main"}), "", "it is not signed")
	r.run("git", "update-ref", "refs/tags/v3", strings.TrimSpace(r.run("git", "rev-parse", "v1")))
	r.check(policy, r.revision(v1alpha1.Ref{Tag: "v3"}), "", "the tag v1 is signed under that name, but the repository has it as refs/tags/v3")
	raw := r.run("git", "cat-file", "tag", "v1")
	hash := strings.TrimSpace(r.pipe(strings.Replace(raw, "Version 1", "Version 9", 1), "git", "hash-object", "-t", "tag", "-w", "--stdin"))
	r.run("git", "update-ref", "refs/tags/v1", hash)
	r.check(policy, r.revision(v1alpha1.Ref{Tag: "v1"}), "", "the signature does not match the content")
	r.commit("ed")
	r.run("git", "tag", "-a", "-m", "Version 4", "v4")
	r.check(policy, r.revision(v1alpha1.Ref{Tag: "v4"}), "alice, ED25519", "")
}

func TestOpenPGPSignatures(t *testing.T) {
	r := newRepository(t)
	home, err := os.MkdirTemp("", "gpg") // the path of its socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() // its agent may be gone
		_ = os.RemoveAll(home)
	})
	gpg := func(args ...string) string {
		return r.run("gpg", append([]string{"--batch", "-q", "--faked-system-time", "20260615T115900!"}, args...)...)
	}
	for name, kind := range map[string]string{"alice": "rsa2048", "bob": "ed25519"} {
		gpg("--passphrase", "", "--quick-generate-key", fmt.Sprintf("%s <%s@example.org>", name, name), kind, "sign", "1y")
	}
	wrapper := filepath.Join(r.keys, "gpg")
	script := "#!/bin/sh\nexec gpg --faked-system-time '20260615T120000!' \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r.run("git", "config", "gpg.format", "openpgp")
	r.run("git", "config", "gpg.program", wrapper)
	sign := func(who string) revision.Revision {
		r.run("git", "-c", "user.signingKey="+who+"@example.org", "commit", "-q", "--allow-empty", "-S", "-m", "A change")
		return r.revision(v1alpha1.Ref{Branch: "main"})
	}
	alice, bob := gpg("--armor", "--export", "alice@example.org"), gpg("--armor", "--export", "bob@example.org")
	rev := sign("alice")
	r.check(v1alpha1.Verify{OpenPGPKeys: alice}, rev, "alice <alice@example.org>, OpenPGP ", "")
	r.check(v1alpha1.Verify{OpenPGPKeys: "both:\n" + bob + "\n" + alice}, rev, "alice <alice@example.org>, OpenPGP ", "")
	r.check(v1alpha1.Verify{OpenPGPKeys: bob}, rev, "", "which is not allowed; add it to spec.verify.openPGPKeys")
	r.check(v1alpha1.Verify{OpenPGPKeys: "x"}, rev, "", "spec.verify.openPGPKeys holds no public key")
	r.check(v1alpha1.Verify{AllowedSigners: "alice " + r.key("ed", "ed25519")}, rev, "", "is signed with OpenPGP, and spec.verify.openPGPKeys is empty")
	r.check(v1alpha1.Verify{OpenPGPKeys: bob}, sign("bob"), "bob <bob@example.org>, OpenPGP ", "")
	if _, err := signature.Verify(v1alpha1.Verify{OpenPGPKeys: alice}, rev, time.Date(2027, 7, 1, 0, 0, 0, 0, time.UTC)); err == nil || !strings.Contains(err.Error(), "which has expired") {
		t.Errorf("expired: %v", err)
	}
	rev.Signed[0].Payload = append(rev.Signed[0].Payload, 'x')
	r.check(v1alpha1.Verify{OpenPGPKeys: alice}, rev, "", "the signature does not match the content")
	r.run("git", "-c", "user.signingKey=alice@example.org", "tag", "-s", "-m", "Version 1", "v1")
	r.check(v1alpha1.Verify{OpenPGPKeys: alice}, r.revision(v1alpha1.Ref{Tag: "v1"}), "alice <alice@example.org>", "")
}
