package sops_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/sops"
)

// The files in testdata were written by sops and age, with the keys beside them.

func file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keys(t *testing.T, names ...string) *sops.Keys {
	t.Helper()
	var texts []string
	for _, n := range names {
		texts = append(texts, string(file(t, n+".agekey")))
	}
	k, err := sops.ParseKeys("the Secret shop/age", texts...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t *testing.T, name string, content []byte, k *sops.Keys) sops.Opened {
	t.Helper()
	o, problem := sops.Open(name, content, k)
	if problem != nil {
		t.Fatalf("%s:%d: %s", problem.Path, problem.Line, problem.Message)
	}
	return o
}

func interfaces(t *testing.T, name string, content []byte) []any {
	t.Helper()
	read := document.YAML
	if filepath.Ext(name) == ".json" {
		read = document.JSON
	}
	docs, problems := read(name, content)
	if len(problems) > 0 {
		t.Fatalf("%+v in\n%s", problems, content)
	}
	var out []any
	for _, d := range docs {
		out = append(out, d.Interface())
	}
	return out
}

func TestValuesOfEachType(t *testing.T) {
	o := open(t, "types.yaml", file(t, "types.yaml"), keys(t, "alice"))
	want := []any{map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "types", "labels": map[string]any{"tier": "gold"}},
		"data": map[string]any{
			"text": "hunter2-types", "empty": "", "quoted": `it's "so": #1`, "multi": "first line\nsecond line\n", "unicode": "grün 🚀 \x7f",
			"long": strings.Repeat("a", 42) + " " + strings.Repeat("b", 50) + " " + strings.Repeat("c", 38),
		},
		"extra": map[string]any{
			"number": int64(8080), "negative": int64(-3), "float": 1.5, "small": 1e-7, "large": 1e21,
			"yes": true, "no": false, "when": "2026-01-31T12:00:00Z", "bytes": "hello",
			"list":             []any{"one", int64(2), map[string]any{"deep": "", "er": ""}, []any{}},
			"open_unencrypted": "visible",
		},
	}}
	want[0].(map[string]any)["extra"].(map[string]any)["list"].([]any)[2] = map[string]any{"deep": map[string]any{"er": "three"}}
	if diff := cmp.Diff(want, interfaces(t, "types.yaml", o.Content)); diff != "" {
		t.Errorf("%s\n%s", diff, o.Content)
	}
}

func TestLinesStayWhereTheyAre(t *testing.T) {
	for _, name := range []string{"types.yaml", "secret.yaml", "docs.yaml", "config.json", "comments.yaml"} {
		sealed := file(t, name)
		o := open(t, name, sealed, keys(t, "alice"))
		was, is := strings.Split(string(sealed), "\n"), strings.Split(string(o.Content), "\n")
		for i, line := range was {
			key, _, ok := strings.Cut(strings.TrimSpace(line), ":")
			if strings.Contains(key, "sops") {
				break
			}
			if ok && !strings.Contains(key, "ENC[") && i < len(is) && !strings.HasPrefix(strings.TrimSpace(is[i]), key) {
				t.Errorf("%s:%d is %q, was %q", name, i+1, is[i], line)
			}
		}
		if bytes.Contains(o.Content, []byte("recipient")) {
			t.Errorf("%s still holds what sops notes:\n%s", name, o.Content)
		}
	}
}

func TestRulesOfWhatIsEncrypted(t *testing.T) {
	secret := []any{map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": map[string]any{"name": "db", "namespace": "shop"},
		"stringData": map[string]any{"password": "hunter2-secret", "user": "app"},
	}}
	for _, name := range []string{"secret.yaml", "several.yaml", "maconly.yaml", "suffix.yaml", "unregex.yaml", "whole.yaml.age", "binary.yaml.age"} {
		o := open(t, name, file(t, name), keys(t, "alice"))
		if diff := cmp.Diff(secret, interfaces(t, name, o.Content)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, name := range []string{"comments.yaml", "uncomments.yaml"} {
		o := open(t, name, file(t, name), keys(t, "alice"))
		want := map[string]any{"open": "visible", "closed": "hunter2-comments", "other": "visible too"}
		if diff := cmp.Diff(want, interfaces(t, name, o.Content)[0].(map[string]any)["data"]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestOtherFormats(t *testing.T) {
	k := keys(t, "alice")
	o := open(t, "config.json", file(t, "config.json"), k)
	want := []any{map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "json"},
		"data": map[string]any{"a": "hunter2-json", "b": `x<y>&"z"`},
		"n":    []any{int64(1), 2.5, int64(12345678901234567), true, nil, map[string]any{"k": "v"}},
	}}
	if diff := cmp.Diff(want, interfaces(t, "config.json", o.Content)); diff != "" {
		t.Error(diff)
	}
	o = open(t, "cert.pem", file(t, "cert.pem"), k)
	if string(o.Content) != "hunter2-binary\nline two\n" {
		t.Errorf("binary: %q", o.Content)
	}
	o = open(t, "app.env", file(t, "app.env"), k)
	if got := strings.TrimSpace(string(o.Content)); got != "USER=app\nPASSWORD=hunter2-env\nEMPTY=\nMULTI=a\\nb" {
		t.Errorf("variables: %q", got)
	}
	if docs := interfaces(t, "docs.yaml", open(t, "docs.yaml", file(t, "docs.yaml"), k).Content); len(docs) != 2 {
		t.Errorf("documents: %v", docs)
	}
}

func TestAnyOfSeveralRecipientsOpens(t *testing.T) {
	for _, who := range [][]string{{"alice"}, {"bob"}, {"carol", "bob"}} {
		open(t, "several.yaml", file(t, "several.yaml"), keys(t, who...))
		open(t, "binary.yaml.age", file(t, "binary.yaml.age"), keys(t, who...))
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	secret := string(file(t, "secret.yaml"))
	lineOf := func(content, text string) int {
		before, _, _ := strings.Cut(content, text)
		return strings.Count(before, "\n") + 1
	}
	swap := func(content string) string { // the two values change places
		lines := strings.Split(content, "\n")
		i, j := lineOf(content, "password:")-1, lineOf(content, "user:")-1
		a, b := strings.SplitN(lines[i], ": ", 2), strings.SplitN(lines[j], ": ", 2)
		lines[i], lines[j] = a[0]+": "+b[1], b[0]+": "+a[1]
		return strings.Join(lines, "\n")
	}
	mac := secret[strings.Index(secret, "mac: ")+5:]
	mac, _, _ = strings.Cut(mac, "\n")
	otherMac := string(file(t, "bob.yaml"))
	otherMac = otherMac[strings.Index(otherMac, "mac: ")+5:]
	otherMac, _, _ = strings.Cut(otherMac, "\n")
	for name, c := range map[string]struct {
		file, content string
		key           string
		line          int
		says          []string
	}{
		"wrong key":          {"secret.yaml", secret, "carol", lineOf(secret, "age:"), []string{"it is for age1", "the Secret shop/age has age1", "sops updatekeys"}},
		"value moved":        {"secret.yaml", swap(secret), "alice", lineOf(secret, "password:"), []string{"stringData.password", "moved here"}},
		"checksum changed":   {"secret.yaml", strings.Replace(secret, mac, otherMac, 1), "alice", lineOf(secret, "mac:"), []string{"checksum"}},
		"plain value added":  {"secret.yaml", strings.Replace(secret, "type: Opaque", "type: Opaque\nimmutable: true", 1), "alice", lineOf(secret, "mac:") + 1, []string{"checksum", "sops edit"}},
		"value in clear":     {"secret.yaml", strings.Replace(secret, "stringData:", "stringData:\n    more: clear-text", 1), "alice", lineOf(secret, "stringData:") + 1, []string{"stringData.more", "not"}},
		"value removed":      {"secret.yaml", deleteLine(secret, "user: ENC"), "alice", lineOf(secret, "mac:") - 1, []string{"checksum"}},
		"data key damaged":   {"secret.yaml", strings.Replace(secret, "FILE-----\n", "FILE-----\n            AAAA\n", 1), "alice", lineOf(secret, "age:"), []string{"data key", "damaged"}},
		"key groups":         {"groups.yaml", string(file(t, "groups.yaml")), "alice", 0, []string{"key_groups", "several keys"}},
		"age, wrong key":     {"whole.yaml.age", string(file(t, "whole.yaml.age")), "carol", 1, []string{"encrypted with age", "age -r"}},
		"age, cut off":       {"binary.yaml.age", string(file(t, "binary.yaml.age"))[:300], "alice", 1, []string{"damaged"}},
		"age, only its head": {"x.age", "age-encryption.org/v1\n", "alice", 1, []string{"damaged"}},
		"a passphrase":       {"x.age", "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 30\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n--- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", "alice", 1, []string{"passphrase"}},
		"many recipients":    {"x.age", "age-encryption.org/v1\n" + strings.Repeat("-> X25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", 100) + "--- AAAA\n", "alice", 1, []string{"more than 64"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, problem := sops.Open(c.file, []byte(c.content), keys(t, c.key))
			if problem == nil {
				t.Fatal("it was opened")
			}
			for _, s := range c.says {
				if !strings.Contains(problem.Message, s) {
					t.Errorf("%q does not say %q", problem.Message, s)
				}
			}
			if c.line > 0 && problem.Line != c.line {
				t.Errorf("line %d, want %d: %s", problem.Line, c.line, problem.Message)
			}
			for _, s := range []string{"hunter2", "clear-text", "AGE-SECRET"} {
				if strings.Contains(problem.Message, s) {
					t.Errorf("the message holds a value: %s", problem.Message)
				}
			}
		})
	}
}

func deleteLine(content, with string) string {
	var out []string
	for _, l := range strings.Split(content, "\n") {
		if !strings.Contains(l, with) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// A formatter may have written the file anew.
func TestOtherWaysToWrite(t *testing.T) {
	secret := string(file(t, "secret.yaml"))
	password := secret[strings.Index(secret, "password: ")+10:]
	password, _, _ = strings.Cut(password, "\n")
	for name, content := range map[string]string{
		"quoted":   strings.Replace(secret, password, `"`+password+`"`, 1),
		"folded":   strings.Replace(secret, password, ">-\n        "+password, 1),
		"comments": strings.Replace(secret, "stringData:", "# "+password+"\nstringData:", 1),
		"dos":      strings.ReplaceAll(secret, "\n", "\r\n"),
	} {
		o := open(t, "secret.yaml", []byte(content), keys(t, "alice"))
		data := interfaces(t, "secret.yaml", o.Content)[0].(map[string]any)["stringData"]
		if diff := cmp.Diff(map[string]any{"password": "hunter2-secret", "user": "app"}, data); diff != "" {
			t.Errorf("%s: %s\n%s", name, diff, o.Content)
		}
	}
}

func TestStandInChangesWithTheValue(t *testing.T) {
	one, ok := sops.StandIn("secret.yaml", file(t, "secret.yaml"))
	two, ok2 := sops.StandIn("secret.yaml", file(t, "several.yaml"))
	if !ok || !ok2 {
		t.Fatal("no shape")
	}
	password := func(b []byte) any {
		return interfaces(t, "secret.yaml", b)[0].(map[string]any)["stringData"].(map[string]any)["password"]
	}
	if a, b := password(one), password(two); a == b || strings.HasPrefix(a.(string), "ENC[") {
		t.Errorf("%v and %v", a, b)
	}
	if _, known := sops.StandIn("whole.yaml.age", file(t, "whole.yaml.age")); known {
		t.Error("the shape of an age file is known")
	}
}

func TestKeys(t *testing.T) {
	for _, text := range []string{"", "AGE-SECRET-KEY-1WRONG", "hunter2", "# only a comment"} {
		if _, err := sops.ParseKeys("the Secret shop/age", text); err == nil || strings.Contains(err.Error(), "WRONG") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if keys(t, "alice", "bob").ID() != keys(t, "bob", "alice", "bob").ID() || keys(t, "alice").ID() == keys(t, "bob").ID() {
		t.Error("the ID does not say which keys they are")
	}
}

// TestFormatsByContent: a name may tell nothing, and a format that is not read is not
// taken for a plain file.
func TestFormatsByContent(t *testing.T) {
	k := keys(t, "alice")
	for from, name := range map[string]string{"secret.yaml": "secret.enc", "config.json": "settings", "app.env": "variables", "cert.pem": "cert"} {
		if open(t, from, file(t, from), k); sops.Detect(name, file(t, from)) != sops.Detect(from, file(t, from)) {
			t.Errorf("%s is read as %v", name, sops.Detect(name, file(t, from)))
		}
	}
	ini := []byte("[a]\npassword = ENC[AES256_GCM,data:YQ==,iv:AAAA,tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]\n\n[sops]\nmac = ENC[AES256_GCM,data:YQ==,iv:AAAA,tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]\n")
	if _, problem := sops.Open("a.ini", ini, k); problem == nil || !strings.Contains(problem.Message, "INI") {
		t.Errorf("INI: %v", problem)
	}
}

func TestPlainFilesAreNotDetected(t *testing.T) {
	for name, content := range map[string]string{
		"a.yaml": "kind: ConfigMap\ndata: {a: b}\n",
		"b.yaml": "sops: {age: []}\n",
		"c.yaml": "data:\n  note: |\n    see ENC[AES256_GCM,data:x]\n",
		"d.yaml": ": : broken ENC[AES256_GCM,",
		"e.yaml": "data:\n  file: |\n    a: ENC[AES256_GCM,data:x]\n    sops: {}\n",
		"f.json": `{"note": "ENC[AES256_GCM,", "tool": {"sops": true}}`,
		"README": "-----BEGIN something",
	} {
		if f := sops.Detect(name, []byte(content)); f != sops.None {
			t.Errorf("%s: %v", name, f)
		}
	}
}

func FuzzOpen(f *testing.F) {
	names, err := os.ReadDir("testdata")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		if n.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("testdata", n.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(n.Name(), b)
	}
	text, err := os.ReadFile("testdata/alice.agekey")
	if err != nil {
		f.Fatal(err)
	}
	k, err := sops.ParseKeys("the test", string(text))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		o, problem := sops.Open(name, content, k)
		sops.StandIn(name, content)
		sops.Closed(name, content)
		if problem != nil && strings.Contains(problem.Message, "hunter2") {
			t.Errorf("a message holds a value: %s", problem.Message)
		}
		if problem == nil && o.Content == nil && len(content) > 0 {
			t.Error("neither content nor problem")
		}
	})
}

func TestHostileFiles(t *testing.T) {
	secret := string(file(t, "secret.yaml"))
	head, _, _ := strings.Cut(secret, "stringData:")
	notes := secret[strings.Index(secret, "sops:"):]
	const line = 7 // the first one below the head
	notSealed := `the value of "data.a" cannot be decrypted: it is not written as SOPS does`
	for name, c := range map[string]struct {
		middle string
		line   int
		says   string
	}{
		"deep":            {"data: " + strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000) + "\n", line, "nests more than 200 levels"},
		"deep lists":      {"data: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n", line, "nests more than 200 levels"},
		"aliases":         {"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", line + 1, "no aliases"},
		"no iv":           {"data: {a: 'ENC[AES256_GCM,data:YQ==,iv:,tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]'}\n", line, notSealed},
		"huge iv":         {"data: {a: 'ENC[AES256_GCM,data:YQ==,iv:" + strings.Repeat("AAAA", 100000) + ",tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]'}\n", line, notSealed},
		"no tag":          {"data: {a: 'ENC[AES256_GCM,data:YQ==,iv:AAAA,tag:,type:str]'}\n", line, notSealed},
		"no base64":       {"data: {a: 'ENC[AES256_GCM,data:!,iv:!,tag:!,type:str]'}\n", line, notSealed},
		"half":            {"data: {a: 'ENC[AES256_GCM,'}\n", line, notSealed},
		"many values":     {"data:\n" + strings.Repeat("  - 'ENC[AES256_GCM,data:YQ==,iv:AAAA,tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]'\n", 20000), line + 1, `the value of "data" cannot be decrypted`},
		"no text as key":  {"1: a\n", line, "a key of an encrypted file must be text"},
		"a list as key":   {"? [a]\n: b\n", line, "a key of an encrypted file must be text"},
		"null as a value": {"data: {a: null, ~: b}\n", line, "a key of an encrypted file must be text"},
		"twice":           {"data: {a: b, a: c}\n", line, "a key is there twice"},
	} {
		t.Run(name, func(t *testing.T) {
			content := []byte(head + c.middle + notes)
			o, problem := sops.Open("secret.yaml", content, keys(t, "alice"))
			if problem == nil {
				t.Fatalf("it was opened: %.200s", o.Content)
			}
			if problem.Line != c.line || !strings.Contains(problem.Message, c.says) {
				t.Errorf("line %d, want %d with %q: %s", problem.Line, c.line, c.says, problem.Message)
			}
			sops.StandIn("secret.yaml", content)
		})
	}
}

// TestDamagedFiles: a file that SOPS wrote is never taken for a plain one, and what is
// wrong with it is said without any key too.
func TestDamagedFiles(t *testing.T) {
	secret, config, variables := string(file(t, "secret.yaml")), string(file(t, "config.json")), string(file(t, "app.env"))
	conflict := func(content, at string) string {
		return strings.Replace(content, at, "<<<<<<< HEAD\n"+at+"=======\n"+at+">>>>>>> other\n", 1)
	}
	lineOf := func(content, text string) int {
		before, _, _ := strings.Cut(content, text)
		return strings.Count(before, "\n") + 1
	}
	const merge, missing = "the marks of a merge conflict", "(sops.mac, sops.lastmodified) is missing"
	for name, c := range map[string]struct {
		file, content string
		line          int
		says          string
	}{
		"conflict in YAML":      {"secret.yaml", conflict(secret, "stringData:\n"), lineOf(secret, "stringData:"), merge},
		"conflict in JSON":      {"config.json", conflict(config, "\t\"data\": {\n"), lineOf(config, "\t\"data\":"), merge},
		"conflict in variables": {"app.env", conflict(variables, "EMPTY=\n"), lineOf(variables, "EMPTY="), merge},
		"a key twice":           {"secret.yaml", strings.Replace(secret, "type: Opaque\n", "type: Opaque\ntype: Opaque\n", 1), lineOf(secret, "type: Opaque") + 1, "twice"},
		"a quote is open":       {"secret.yaml", strings.Replace(secret, "type: Opaque", "type: \"Opaque", 1), 0, "no valid YAML here"},
		"JSON cut off":          {"config.json", config[:strings.Index(config, "\"mac\"")], lineOf(config, "\"mac\"") - 1, "no valid JSON here"},
		"YAML cut off":          {"secret.yaml", secret[:strings.Index(secret, "    lastmodified")], lineOf(secret, "sops:") + 1, missing},
		"variables cut off":     {"app.env", variables[:strings.Index(variables, "sops_lastmodified")], 0, missing},
		"notes that are empty":  {"secret.yaml", secret[:strings.Index(secret, "sops:")] + "sops: null\n", lineOf(secret, "sops:"), missing},
		"the first notes lost":  {"docs.yaml", secret[:strings.Index(secret, "sops:")] + "---\n" + secret, 1, missing},
	} {
		t.Run(name, func(t *testing.T) {
			if f := sops.Detect(c.file, []byte(c.content)); f == sops.None {
				t.Error("it is taken for a plain file")
			}
			_, problem := sops.Open(c.file, []byte(c.content), keys(t, "alice"))
			if problem == nil {
				t.Fatal("it was opened")
			}
			if !strings.Contains(problem.Message, c.says) || c.line > 0 && problem.Line != c.line {
				t.Errorf("line %d, want %d with %q: %s", problem.Line, c.line, c.says, problem.Message)
			}
			if without := sops.Damage(c.file, []byte(c.content)); without == nil || *without != *problem {
				t.Errorf("without a key it is %v", without)
			}
		})
	}
	for _, name := range []string{"secret.yaml", "config.json", "app.env", "cert.pem", "groups.yaml", "whole.yaml.age"} {
		if problem := sops.Damage(name, file(t, name)); problem != nil {
			t.Errorf("%s: %s", name, problem.Message)
		}
	}
}

func TestCiphertext(t *testing.T) {
	const value = "ENC[AES256_GCM,data:YQ==,iv:AAAA,tag:AAAAAAAAAAAAAAAAAAAAAA==,type:str]"
	for text, want := range map[string]bool{
		value:                          true,
		" " + value + "\n":             true,
		"{\"a\": \"" + value + "\"}\n": true,
		"a: ENC[AES256_GCM,data:a,iv:b,tag:c,type:str]\nb: " + value: true,
		"see ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]":               false,
		"ENC[AES256_GCM,data:Zm9v,iv:YmFy,tag:YmF6,type:str]":        false, // as documentation has it
		"ENC[AES256_GCM,": false,
		"":                false,
	} {
		if sops.Ciphertext(text) != want {
			t.Errorf("%q: %t", text, !want)
		}
	}
}
