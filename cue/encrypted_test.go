package cue_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/cue"
	"berth.dev/berth/cue/sops"
)

// The encrypted files of these tests were written by sops and age. Every value in
// them that nobody may see holds the word hunter2.

func sealed(t *testing.T, name string) memoryFile {
	t.Helper()
	for _, dir := range []string{"testdata/encrypted/", "sops/testdata/"} {
		if b, err := os.ReadFile(dir + name); err == nil {
			return memoryFile{content: b}
		}
	}
	t.Fatalf("no file %s", name)
	return memoryFile{}
}

func ageKeys(t *testing.T, name string) cue.Decryption {
	t.Helper()
	keys, err := sops.ParseKeys("the Secret shop/age", string(sealed(t, name+".agekey").content))
	if err != nil {
		t.Fatal(err)
	}
	return cue.Decryption{Keys: keys}
}

var skipping = cue.Decryption{Skip: true, Without: "name the key"}

func compileWith(t *testing.T, m memory, d cue.Decryption) manifest.Set {
	t.Helper()
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	return compileBy(t, c, m, d)
}

func compileBy(t *testing.T, c *cue.Compiler, m memory, d cue.Decryption) manifest.Set {
	t.Helper()
	set, err := c.Compile(t.Context(), revisionOf(m), cue.Options{Source: "s", Path: "deploy", TargetNamespace: "default", Decryption: d})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range set.Diagnostics {
		if text := fmt.Sprint(d); strings.Contains(strings.ToLower(text), "hunter2") {
			t.Errorf("a message holds a value: %s", text)
		}
	}
	for _, r := range set.Open {
		if text := r.Missing("here").Message; strings.Contains(text, "hunter2") {
			t.Errorf("a reference holds a value: %s", text)
		}
	}
	return set
}

func said(set manifest.Set) string {
	var b strings.Builder
	for _, d := range set.Diagnostics {
		fmt.Fprintln(&b, d)
	}
	return b.String()
}

func wantSaid(t *testing.T, set manifest.Set, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if !strings.Contains(said(set), s) {
			t.Errorf("nothing says %q:\n%s", s, said(set))
		}
	}
}

func object(t *testing.T, set manifest.Set, kind, name string) manifest.Manifest {
	t.Helper()
	for _, m := range set.Manifests {
		if m.Object.GetKind() == kind && strings.HasPrefix(m.Object.GetName(), name) {
			return m
		}
	}
	t.Fatalf("no %s %s among %d objects:\n%s", kind, name, len(set.Manifests), said(set))
	return manifest.Manifest{}
}

func marked(m manifest.Manifest) bool {
	return m.Object.GetAnnotations()[v1alpha1.AnnotationEncrypted] == "true"
}

func TestEncryptedManifests(t *testing.T) {
	set := compileWith(t, memory{
		"deploy/secret.yaml":     sealed(t, "secret.yaml"),
		"deploy/config.yaml.age": sealed(t, "config.yaml.age"),
		"deploy/plain.yaml":      text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\n"),
		"deploy/docs.yaml":       sealed(t, "docs.yaml"),
		"deploy/tool.yaml":       sealed(t, "values.yaml"), // of another tool
	}, ageKeys(t, "alice"))
	if v1alpha1.HasErrors(set.Diagnostics) {
		t.Fatal(said(set))
	}
	m := object(t, set, "Secret", "db")
	if data, _ := m.Object.Object["stringData"].(map[string]any); data["password"] != "hunter2-secret" || m.Origin.String() != "deploy/secret.yaml:1" || !marked(m) {
		t.Errorf("Secret: %v at %s", m.Object.Object, m.Origin)
	}
	if m := object(t, set, "ConfigMap", "settings"); !marked(m) || m.Origin.String() != "deploy/config.yaml.age:1" {
		t.Errorf("ConfigMap of a file of age: %v at %s", m.Object.Object, m.Origin)
	}
	if marked(object(t, set, "ConfigMap", "plain")) {
		t.Error("a plain object is marked as encrypted")
	}
	if m := object(t, set, "Secret", "two"); m.Origin.Line < 10 {
		t.Errorf("the second document is at %s", m.Origin)
	}
}

// TestWithoutKeys: a file that nobody can open fails the commit, says what to do,
// and is never deployed as it is.
func TestWithoutKeys(t *testing.T) {
	m := memory{"deploy/secret.yaml": sealed(t, "secret.yaml"), "deploy/config.yaml.age": sealed(t, "config.yaml.age")}
	for name, c := range map[string]struct {
		d    cue.Decryption
		says []string
	}{
		"no keys named": {cue.Decryption{}, []string{"deploy/secret.yaml:11", "encrypted with SOPS for age1", "set spec.decryption", "deploy/config.yaml.age:1", "encrypted with age"}},
		"no Secret":     {cue.Decryption{Without: "the Secret shop/age is not there"}, []string{"the Secret shop/age is not there"}},
		"another key":   {ageKeys(t, "carol"), []string{"deploy/secret.yaml:11", "deploy/config.yaml.age:1", "the Secret shop/age has age1", "sops updatekeys"}},
	} {
		set := compileWith(t, m, c.d)
		if !v1alpha1.HasErrors(set.Diagnostics) || len(set.Manifests) != 0 {
			t.Errorf("%s: %d objects\n%s", name, len(set.Manifests), said(set))
		}
		wantSaid(t, set, c.says...)
	}
	broken := memory{"deploy/secret.yaml": text(strings.SplitAfter(string(sealed(t, "secret.yaml").content), "type: Opaque\n")[0] + "stringData:\n  password: 'ENC[AES256_GCM,data:YQ==,iv:AAAA,tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]'\n")}
	set := compileWith(t, broken, ageKeys(t, "alice"))
	wantSaid(t, set, "encrypted by SOPS, and nothing here says how to open it")
	if !v1alpha1.HasErrors(set.Diagnostics) {
		t.Error("ciphertext was deployed")
	}
}

// TestDamagedEncryptedFiles: no ciphertext is deployed out of a file that a merge has
// damaged, or that has lost what SOPS notes, whoever reads it.
func TestDamagedEncryptedFiles(t *testing.T) {
	secret, env := string(sealed(t, "secret.yaml").content), string(sealed(t, "app.env").content)
	config := string(sealed(t, "config.json").content)
	half := func(content string) string {
		return "<<<<<<< HEAD\n" + content + "=======\n" + content + ">>>>>>> other\n"
	}
	head, _, _ := strings.Cut(secret, "sops:")
	lost, _, _ := strings.Cut(config, ",\n\t\"sops\"")
	const merge, open = "the marks of a merge conflict", "nothing here says how to open it"
	for name, c := range map[string]struct {
		tree memory
		says string
	}{
		"manifest with a conflict":        {memory{"deploy/a.yaml": text(half(secret))}, "deploy/a.yaml:1: the file is encrypted with SOPS, and holds " + merge},
		"manifest without notes":          {memory{"deploy/a.yaml": text(head)}, "deploy/a.yaml:8:15: Secret/db: the value is encrypted by SOPS"},
		"file of a generator, a conflict": {memory{"deploy/kustomization.yaml": text("secretGenerator: [{name: x, files: [config.json]}]\n"), "deploy/config.json": text(half(config))}, merge},
		"variables, a conflict":           {memory{"deploy/kustomization.yaml": text("configMapGenerator: [{name: x, files: [app.env]}]\n"), "deploy/app.env": text(half(env))}, merge},
		"file of a Secret, no notes":      {memory{"deploy/kustomization.yaml": text("secretGenerator: [{name: x, files: [config.json]}]\n"), "deploy/config.json": text(lost + "}\n")}, open},
		"file of a ConfigMap, no notes":   {memory{"deploy/kustomization.yaml": text("configMapGenerator: [{name: x, files: [config.json]}]\n"), "deploy/config.json": text(lost + "}\n")}, open},
		"file without name, no notes":     {memory{"deploy/kustomization.yaml": text("secretGenerator: [{name: x, files: [config]}]\n"), "deploy/config": text(lost)}, open},
	} {
		for how, d := range map[string]cue.Decryption{"with a key": ageKeys(t, "alice"), "without": skipping} {
			set := compileWith(t, c.tree, d)
			if !v1alpha1.HasErrors(set.Diagnostics) || len(set.Manifests) != 0 {
				t.Errorf("%s, %s: %d objects", name, how, len(set.Manifests))
			}
			if !strings.Contains(said(set), c.says) {
				t.Errorf("%s, %s: nothing says %q:\n%s", name, how, c.says, said(set))
			}
		}
	}
	set := compileWith(t, memory{"deploy/a.yaml": text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: doc}\ndata:\n  README.md: |\n    A value is ENC[AES256_GCM,data:…,iv:…,tag:…,type:str], and\n    sops: holds the rest.\n")}, cue.Decryption{})
	if v1alpha1.HasErrors(set.Diagnostics) || len(set.Manifests) != 1 {
		t.Errorf("prose: %s", said(set))
	}
}

// TestKeysCountForTheCache: what one key has opened is not there for another.
func TestKeysCountForTheCache(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	m := memory{"deploy/secret.yaml": sealed(t, "secret.yaml")}
	for i, step := range []struct {
		d    cue.Decryption
		fine bool
	}{{cue.Decryption{}, false}, {ageKeys(t, "alice"), true}, {ageKeys(t, "carol"), false}, {cue.Decryption{}, false}, {ageKeys(t, "alice"), true}} {
		if set := compileBy(t, c, m, step.d); v1alpha1.HasErrors(set.Diagnostics) == step.fine {
			t.Errorf("step %d: %s", i, said(set))
		}
	}
}

// TestFaultsOfEncryptedObjects: what is wrong is said with its place, and without
// the value that is.
func TestFaultsOfEncryptedObjects(t *testing.T) {
	set := compileWith(t, memory{"deploy/wrong.yaml": sealed(t, "wrong.yaml")}, ageKeys(t, "alice"))
	wantSaid(t, set, "deploy/wrong.yaml:6:", "spec.replicas", "ports[0].containerPort")
}

// TestEncryptedFilesApart: what is evaluated in another process is opened, marked and
// guarded like the rest.
func TestEncryptedFilesApart(t *testing.T) {
	c, _ := apart(t, time.Minute)
	m := memory{
		"deploy/app/a.cue": embedder(""), "deploy/app/values.yaml": sealed(t, "values.yaml"),
		"deploy/kust/kustomization.yaml": text("secretGenerator: [{name: env, envs: [app.env]}]\n"), "deploy/kust/app.env": sealed(t, "app.env"),
	}
	set := compileBy(t, c, m, ageKeys(t, "alice"))
	if data, _ := object(t, set, "ConfigMap", "made").Object.Object["data"].(map[string]any); data["upper"] != "HUNTER2-EMBEDDED" || !marked(object(t, set, "ConfigMap", "made")) {
		t.Errorf("made: %v", data)
	}
	if !marked(object(t, set, "Secret", "env")) {
		t.Error("what a kustomization made is not marked")
	}
	m["deploy/app/a.cue"] = embedder(`x: secrets.password & "other"`)
	set = compileBy(t, c, m, ageKeys(t, "alice"))
	wantSaid(t, set, "conflicting values; what exactly may hold a value")
	set = compileBy(t, c, m, cue.Decryption{})
	wantSaid(t, set, "deploy/app/values.yaml:7: the file is encrypted", "deploy/kust/app.env:")
}

// TestTwoFoldersWithOneEncryptedFile: an object that two packages make is one, and
// counts as encrypted if one of them reads an encrypted file.
func TestTwoFoldersWithOneEncryptedFile(t *testing.T) {
	set := compileWith(t, memory{
		"deploy/base.cue":         text("package deploy\n\nbase: {apiVersion: \"v1\", kind: \"ConfigMap\", metadata: name: \"base\"}\n"),
		"deploy/prod/a.cue":       embedder(""),
		"deploy/prod/values.yaml": sealed(t, "values.yaml"),
	}, ageKeys(t, "alice"))
	if v1alpha1.HasErrors(set.Diagnostics) || len(set.Manifests) != 2 || !marked(object(t, set, "ConfigMap", "base")) {
		t.Errorf("%d objects\n%s", len(set.Manifests), said(set))
	}
}

// TestBrokenFilesThatWereEncrypted: what a reader says of a text may quote it.
func TestBrokenFilesThatWereEncrypted(t *testing.T) {
	for _, name := range []string{"broken.yaml.age", "twice.yaml.age"} {
		for kind, m := range map[string]memory{
			"manifest":      {},
			"kustomization": {"deploy/kustomization.yaml": text("resources: [values.yaml]\n")},
			"patch":         {"deploy/kustomization.yaml": text("resources: [a.yaml]\npatches: [{path: values.yaml}]\n"), "deploy/a.yaml": text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")},
			"generator":     {"deploy/kustomization.yaml": text("configMapGenerator: [{name: x, envs: [values.yaml]}]\n")},
			"embedded":      {"deploy/a.cue": embedder("")},
		} {
			m["deploy/values.yaml.age"] = sealed(t, name)
			set := compileWith(t, m, ageKeys(t, "alice"))
			if kind != "manifest" && !v1alpha1.HasErrors(set.Diagnostics) {
				t.Errorf("%s as %s is no error:\n%s", name, kind, said(set))
			}
			t.Logf("%s as %s:\n%s", name, kind, said(set))
		}
	}
}

func TestEncryptedFilesOfKustomizations(t *testing.T) {
	m := memory{
		"deploy/kustomization.yaml": text("namespace: shop\nnamePrefix: prod-\nresources: [web.yaml, config.yaml, settings.yaml]\n" +
			"secretGenerator:\n- {name: env, envs: [app.env]}\n- {name: tls, files: [tls.key]}\n"),
		"deploy/web.yaml":          text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n"),
		"deploy/config.yaml":       sealed(t, "secret.yaml"),
		"deploy/settings.yaml.age": sealed(t, "config.yaml.age"),
		"deploy/app.env":           sealed(t, "app.env"),
		"deploy/tls.key":           sealed(t, "tls.key"),
	}
	set := compileWith(t, m, ageKeys(t, "alice"))
	if v1alpha1.HasErrors(set.Diagnostics) {
		t.Fatal(said(set))
	}
	for kind, name := range map[string]string{"Secret": "prod-db", "ConfigMap": "prod-web"} {
		if !marked(object(t, set, kind, name)) {
			t.Errorf("%s is not marked", name)
		}
	}
	if m := object(t, set, "ConfigMap", "prod-settings"); m.Origin.Path != "deploy/settings.yaml.age" {
		t.Errorf("it is at %s", m.Origin)
	}
	data, _ := object(t, set, "Secret", "prod-env").Object.Object["data"].(map[string]any)
	if data["PASSWORD"] != "aHVudGVyMi1nZW5lcmF0ZWQ=" {
		t.Errorf("generated: %v", data)
	}
	data, _ = object(t, set, "Secret", "prod-tls").Object.Object["data"].(map[string]any)
	if data["tls.key"] != "aHVudGVyMi1rZXktbGluZS1vbmUKaHVudGVyMi1rZXktbGluZS10d28K" {
		t.Errorf("generated: %v", data)
	}
	m["deploy/kustomization.yaml"] = text("resources: [settings.yaml.age]\n")
	if set := compileWith(t, m, ageKeys(t, "alice")); !marked(object(t, set, "ConfigMap", "settings")) || strings.Contains(said(set), "settings.yaml") {
		t.Errorf("named as it is written:\n%s", said(set))
	}
	m["deploy/kustomization.yaml"] = text("resources: [config.yaml]\npatches:\n- target: {kind: Secret}\n  patch: '[{op: test, path: /stringData/password, value: x}, {op: replace, path: /nowhere/a/b, value: y}]'\n")
	set = compileWith(t, m, ageKeys(t, "alice"))
	if !v1alpha1.HasErrors(set.Diagnostics) {
		t.Error("a patch that does not fit was built")
	}
	wantSaid(t, set, "deploy/kustomization.yaml:4:", "may hold a value of an encrypted file and is left out")
	set = compileWith(t, m, cue.Decryption{})
	wantSaid(t, set, "deploy/config.yaml:11", "set spec.decryption")
}

const embedding = `@extern(embed)
package deploy

secrets: _ @embed(file="values.yaml")

config: {
	apiVersion: "v1"
	kind:       "ConfigMap"
	metadata: name: "made"
	data: {
		upper: strings.ToUpper(secrets.password)
		MORE
	}
}
`

func embedder(more string) memoryFile {
	return text(strings.Replace(strings.Replace(embedding, "MORE", more, 1), "secrets: _", "import \"strings\"\n\nsecrets: _", 1))
}

func TestEncryptedFilesThatCUEEmbeds(t *testing.T) {
	m := memory{"deploy/a.cue": embedder(""), "deploy/values.yaml": sealed(t, "values.yaml"), "deploy/other.yaml": sealed(t, "bob.yaml"),
		"deploy/.berthignore": text("")}
	delete(m, "deploy/other.yaml")
	set := compileWith(t, m, ageKeys(t, "alice"))
	if v1alpha1.HasErrors(set.Diagnostics) {
		t.Fatal(said(set))
	}
	made := object(t, set, "ConfigMap", "made")
	if data, _ := made.Object.Object["data"].(map[string]any); data["upper"] != "HUNTER2-EMBEDDED" || !marked(made) {
		t.Errorf("made: %v", made.Object.Object)
	}
	for name, more := range map[string]string{
		"conflict":      `x: secrets.password & "other"`,
		"bound":         `x: strings.ToUpper(secrets.password) & =~"^[0-9]+$"`,
		"type":          `x: secrets.port`,
		"interpolation": `x: "\(secrets.users[0])-x" & "y"`,
		"a call":        `x: strings.Repeat(secrets.password, -1)`,
		"an index":      `x: {a: 1}[secrets.password]`,
		"own error":     `x: error("it is \(secrets.password)")`,
		"a field":       `"\(strings.ToUpper(secrets.password))": 5`,
		"a list":        `x: secrets.users[7]`,
	} {
		t.Run(name, func(t *testing.T) {
			m["deploy/a.cue"] = embedder(more)
			set := compileWith(t, m, ageKeys(t, "alice"))
			if !v1alpha1.HasErrors(set.Diagnostics) {
				t.Errorf("no fault:\n%s", said(set))
			}
			for _, d := range set.Diagnostics {
				if d.Path != "deploy/a.cue" && d.Path != "deploy/values.yaml" {
					t.Errorf("at %s: %s", d.Path, d)
				}
			}
		})
	}
	m["deploy/a.cue"] = embedder("")
	set = compileWith(t, m, ageKeys(t, "carol"))
	wantSaid(t, set, "deploy/values.yaml:", "no key that Berth has opens it")
}

// TestValidateWithoutKeys: encrypted files are warnings, and so is what is wrong
// only because of them. What is wrong anyway stays an error.
func TestValidateWithoutKeys(t *testing.T) {
	values := sealed(t, "values.yaml")
	ageValues := sealed(t, "config.yaml.age")
	for name, c := range map[string]struct {
		tree   memory
		errors []string
	}{
		"manifests": {memory{"deploy/a.yaml": sealed(t, "secret.yaml"), "deploy/b.yaml.age": sealed(t, "config.yaml.age"), "deploy/wrong.yaml": sealed(t, "wrong.yaml")}, nil},
		"another manifest is wrong": {memory{"deploy/a.yaml": sealed(t, "secret.yaml"), "deploy/b.yaml": text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\nmisspelt: 1\n")},
			[]string{"deploy/b.yaml:4"}},
		"embedded":                          {memory{"deploy/a.cue": embedder(`x: secrets.password & =~"^[a-z]{3}$"`), "deploy/values.yaml": values}, nil},
		"embedded, used in a comprehension": {memory{"deploy/a.cue": embedder("for i, u in secrets.users {\"user\\(i)\": u}\nif secrets.port > 90 {large: \"yes\"}"), "deploy/values.yaml": values}, nil},
		"embedded, and a conflict elsewhere": {memory{"deploy/a.cue": embedder("x: \"a\" & \"b\""), "deploy/values.yaml": values},
			[]string{"conflicting values"}},
		"embedded, and a wrong field elsewhere": {memory{"deploy/a.cue": embedder(""), "deploy/values.yaml": values,
			"deploy/b.cue": text("package deploy\n\nother: {apiVersion: \"v1\", kind: \"ConfigMap\", metadata: name: \"o\", dta: {}}\n")}, []string{"deploy/b.cue:3", "dta"}},
		"embedded, and something lacks a value anyway": {memory{"deploy/a.cue": embedder("x: string"), "deploy/values.yaml": values}, []string{"x"}},
		"embedded, and a field that it does not have":  {memory{"deploy/a.cue": embedder("x: secrets.missing"), "deploy/values.yaml": values}, []string{"deploy/a.cue"}},
		"embedded, and a reference that leads nowhere": {memory{"deploy/a.cue": embedder("x: nowhere"), "deploy/values.yaml": values}, []string{"nowhere"}},
		"embedded, as an index":                        {memory{"deploy/a.cue": embedder("x: {a: \"b\"}[secrets.password]"), "deploy/values.yaml": values}, nil},
		"embedded out of a file of age":                {memory{"deploy/a.cue": embedder("x: secrets.nested.thing"), "deploy/values.yaml.age": ageValues}, nil},
		"out of a file of age, and a conflict": {memory{"deploy/a.cue": embedder("x: 1 & 2"), "deploy/values.yaml.age": ageValues},
			[]string{"conflicting values"}},
		"not embedded": {memory{"deploy/a.cue": text("@extern(embed)\npackage deploy\nx: _ @embed(file=\"plain.json\")\ny: {apiVersion: \"v1\", kind: \"ConfigMap\", metadata: name: \"o\", data: x}\n"),
			"deploy/plain.json": text(`{"a": "b"}`), "deploy/values.yaml": values}, nil},
		"kustomization": {memory{"deploy/kustomization.yaml": text("resources: [a.yaml, b.yaml]\nsecretGenerator: [{name: env, envs: [app.env]}]\n"), "deploy/a.yaml": sealed(t, "secret.yaml"),
			"deploy/b.yaml.age": ageValues, "deploy/app.env": sealed(t, "app.env")}, nil},
		"kustomization with a fault": {memory{"deploy/kustomization.yaml": text("resources: [a.yaml, c.yaml]\nmisspelt: 1\n"), "deploy/a.yaml": sealed(t, "secret.yaml"),
			"deploy/c.yaml": text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")}, []string{"kustomization.yaml:2"}},
		"kustomization with a faulty resource": {memory{"deploy/kustomization.yaml": text("resources: [a.yaml, c.yaml, b.yaml]\n"), "deploy/a.yaml": sealed(t, "secret.yaml"), "deploy/b.yaml.age": ageValues,
			"deploy/c.yaml": text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nwrong: 1\n")}, []string{"deploy/c.yaml:4"}},
	} {
		t.Run(name, func(t *testing.T) {
			set := compileWith(t, c.tree, skipping)
			if v1alpha1.HasErrors(set.Diagnostics) != (len(c.errors) > 0) {
				t.Errorf("errors %v:\n%s", c.errors, said(set))
			}
			wantSaid(t, set, c.errors...)
			if name != "not embedded" && name != "kustomization with a fault" {
				wantSaid(t, set, "was not looked into; name the key")
			}
		})
	}
}

// TestKustomizationWithoutKeysTwice: what is kept of a kustomization with files that
// nobody can open is what was made of it the first time.
func TestKustomizationWithoutKeysTwice(t *testing.T) {
	c, err := cue.New()
	if err != nil {
		t.Fatal(err)
	}
	m := memory{"deploy/kustomization.yaml": text("resources: [a.yaml, b.yaml]\n"), "deploy/a.yaml": sealed(t, "secret.yaml"), "deploy/b.yaml.age": sealed(t, "config.yaml.age")}
	first, again := compileBy(t, c, m, skipping), compileBy(t, c, m, skipping)
	for _, set := range []manifest.Set{first, again} {
		if len(set.Manifests) != 1 || !marked(object(t, set, "Secret", "db")) {
			t.Errorf("%d objects", len(set.Manifests))
		}
		wantSaid(t, set, "deploy/a.yaml:11", "deploy/b.yaml.age:1")
	}
	if diff := cmp.Diff(said(first), said(again)); diff != "" {
		t.Error(diff)
	}
}

func TestNamesOfEncryptedFiles(t *testing.T) {
	set := compileWith(t, memory{"deploy/a.yaml": text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"), "deploy/a.yaml.age": sealed(t, "config.yaml.age"),
		"deploy/b.cue.age": sealed(t, "config.yaml.age")}, ageKeys(t, "alice"))
	wantSaid(t, set, "the folder holds a.yaml too", "CUE is not read from encrypted files")
}
