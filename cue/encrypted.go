package cue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"berth.dev/berth/api/revision"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/sops"
)

// Decryption says how encrypted files are opened. The zero value opens none.
type Decryption struct {
	Keys *sops.Keys
	// Without says what to do about an encrypted file where there are no keys.
	Without string
	// Skip makes a warning of an encrypted file where there are no keys. What needs
	// its content is compiled with something else in its place.
	Skip bool
}

// withoutKeys is what to do in a Source that names no keys.
const withoutKeys = "set spec.decryption of the Source: {secretName: NAME}, and put the age key into that Secret: kubectl create secret generic NAME --from-file=age.agekey"

// id is the same where the same file gives the same result.
func (d Decryption) id() string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q %q %t", d.Keys.ID(), d.Without, d.Skip)))
	return string(sum[:])
}

// closed is what is said of a file for which there are no keys.
func (d Decryption) closed(name string, raw []byte) document.Problem {
	at, recipients := sops.Closed(name, raw)
	p := document.Problem{Pos: at, Warning: d.Skip}
	p.Message = fmt.Sprintf("the file is encrypted with %s", sops.Detect(name, raw))
	if len(recipients) > 0 {
		p.Message += " for " + sops.List(recipients)
	}
	if d.Skip {
		p.Message += ", and was not looked into"
	}
	without := d.Without
	if without == "" {
		without = withoutKeys
	}
	p.Message += "; " + without
	return p
}

// source is a file as it is compiled.
type source struct {
	content []byte
	// encrypted: it was, and values are what no message may show of it.
	encrypted bool
	values    []string
	// instead: another content stands in its place, of the same shape or not.
	instead, shapeless bool
}

// open reads a file, and opens it if it is encrypted. A problem that is a warning
// comes with what stands in its place.
func (j *job) open(ctx context.Context, f revision.File) (source, *document.Problem, error) {
	raw, problem, err := j.in.read(ctx, f)
	if err != nil || problem != nil {
		return source{}, problem, err
	}
	s, problem := j.opened(f.Path, raw)
	return s, problem, nil
}

func (j *job) opened(name string, raw []byte) (source, *document.Problem) {
	name = j.in.written(name)
	if sops.Detect(name, raw) == sops.None {
		return source{content: raw}, nil
	}
	if j.decryption.Keys != nil {
		o, problem := sops.Open(name, raw, j.decryption.Keys)
		return source{content: o.Content, encrypted: true, values: o.Values}, problem
	}
	if problem := sops.Damage(name, raw); problem != nil {
		return source{encrypted: true}, problem
	}
	problem := j.decryption.closed(name, raw)
	if !j.decryption.Skip {
		return source{}, &problem
	}
	s := source{encrypted: true, instead: true}
	var known bool
	if s.content, known = sops.StandIn(name, raw); !known {
		sum := sha256.Sum256(raw)
		s.content, s.shapeless = []byte(hex.EncodeToString(sum[:])), true
	}
	return s, &problem
}

// unseal lists each file NAME.age as NAME, beside itself: what refers to it names it
// as it is when it is open.
func (in *inputs) unseal(f revision.File) {
	name, ok := strings.CutSuffix(f.Path, sops.Suffix)
	if !ok || f.Kind != revision.Regular {
		return
	}
	if in.age == nil {
		in.age = map[string]revision.File{}
	}
	in.age[name] = f
}

// unsealed puts them beside the others.
func (in *inputs) unsealed(root string) {
	for _, name := range sortedKeys(in.age) {
		f := in.age[name]
		deployed := within(root, name) && !hidden(root, name) && !inCueMod(name)
		ext := path.Ext(name)
		fault := func(message string) {
			if deployed && manifestLike(ext) {
				in.problems = append(in.problems, document.Problem{Pos: document.Pos{Path: f.Path, Line: 1}, Message: message})
			}
			delete(in.age, name)
		}
		switch _, twice := in.all[name]; {
		case ext == ".cue":
			fault("CUE is not read from encrypted files; put the values into a YAML file, encrypt that, and embed it: @embed(file=\"NAME.yaml\")")
		case twice:
			fault(fmt.Sprintf("the folder holds %s too, and this file stands for it; remove one of the two", path.Base(name)))
		case f.Size > maxFile:
			fault(fmt.Sprintf("the file is %.1f MiB; at most %d MiB are read: split it, or list it in .berthignore", float64(f.Size)/(1<<20), maxFile>>20))
		default:
			open := f
			open.Path = name
			in.all[name] = open
			if deployed && manifestLike(ext) {
				in.plain = append(in.plain, open)
			}
		}
	}
}

// written is the name that a file has in the repository.
func (in *inputs) written(name string) string {
	if f, ok := in.age[name]; ok {
		return f.Path
	}
	return name
}

// relocate names the files of a result as the repository has them. The result may
// be kept by the cache, so it is not changed.
func (in *inputs) relocate(a admitted) admitted {
	if len(in.age) == 0 {
		return a
	}
	problems := make([]document.Problem, len(a.problems))
	for i, p := range a.problems {
		p.Path = in.written(p.Path)
		problems[i] = p
	}
	objects := make([]object, len(a.objects))
	for i, o := range a.objects {
		o.Origin.Path = in.written(o.Origin.Path)
		links := make([]link, len(o.Links))
		for n, l := range o.Links {
			l.At.Path, l.KeyAt.Path = in.written(l.At.Path), in.written(l.KeyAt.Path)
			links[n] = l
		}
		o.Links = links
		objects[i] = o
	}
	a.problems, a.objects = problems, objects
	return a
}

// plainEncrypted compiles a YAML or JSON file that is encrypted.
func (j *job) plainEncrypted(f revision.File, raw []byte) admitted {
	name := j.in.written(f.Path)
	if sops.Detect(name, raw) != sops.Age {
		if !looksLikeManifest(name, raw) {
			return j.compiler.kinds.plainFile(f, raw, true) // SOPS leaves the keys: it is none, and says so
		}
	}
	s, problem := j.opened(f.Path, raw)
	if problem != nil && !problem.Warning {
		return admitted{problems: []document.Problem{*problem}}
	}
	var out admitted
	if !s.shapeless {
		out = j.compiler.kinds.plainFile(f, s.content, true)
	}
	out = guardian{values: s.values}.guard(out)
	if problem != nil {
		out.problems = []document.Problem{*problem}
	}
	out.problems = few(out.problems)
	return out
}
