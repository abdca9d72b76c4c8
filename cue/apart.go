package cue

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"

	"berth.dev/berth/api/manifest"
	"berth.dev/berth/cue/document"
	"berth.dev/berth/cue/worker"
)

// DefaultLimits are those of the evaluation of one folder.
func DefaultLimits() worker.Limits { return worker.Limits{Memory: 1 << 30, Timeout: 30 * time.Second} }

// NewApart makes a Compiler that evaluates CUE and builds kustomizations in the processes of
// a pool, whose command calls Work. An evaluation cannot be ended otherwise, and gives back
// its memory only when its process ends.
func NewApart(pool *worker.Pool) (*Compiler, error) {
	c, err := New()
	if err == nil {
		c.apart = pool
	}
	return c, err
}

// Warm readies a process for a compile that is about to come, where one was
// needed before.
func (c *Compiler) Warm() {
	if c.apart != nil && c.needed.Load() {
		c.apart.Warm()
	}
}

// Work is what the processes of a pool do, until their input ends.
func Work(in io.Reader, out io.Writer) error {
	c, err := New()
	if err != nil {
		return err
	}
	// What a library prints would read as the reason for which this process ends;
	// the runtime, which knows that reason, does not write by this variable.
	defer func(stderr *os.File) { os.Stderr = stderr }(os.Stderr)
	if os.Stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
		return err
	}
	return worker.Serve(in, out, c.work)
}

// answer is an admitted on its way from one process to another.
type answer struct {
	Objects  []answerObject
	Problems []document.Problem
	// Fault is an error that is not the user's.
	Fault string
}

type answerObject struct {
	JSON   []byte
	Origin manifest.Origin
	Links  []link
}

func (c *Compiler) work(work []byte) []byte {
	var a answer
	var r request
	if err := gob.NewDecoder(bytes.NewReader(work)).Decode(&r); err != nil {
		a.Fault = "read the request: " + err.Error()
	} else {
		a = pack(c.perform(context.Background(), r))
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(a); err != nil {
		b.Reset()
		_ = gob.NewEncoder(&b).Encode(answer{Fault: "write the answer: " + err.Error()}) // a struct of strings: cannot fail
	}
	return b.Bytes()
}

func pack(r admitted) answer {
	a := answer{Problems: r.problems}
	for _, m := range r.objects {
		b, err := m.Object.MarshalJSON()
		if err != nil {
			return answer{Fault: fmt.Sprintf("encode the object at %s: %s", m.Origin, err)}
		}
		a.Objects = append(a.Objects, answerObject{b, m.Origin, m.Links})
	}
	return a
}

func unpack(b []byte) (admitted, error) {
	var a answer
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&a); err != nil {
		return admitted{}, err
	}
	if a.Fault != "" {
		return admitted{}, errors.New(a.Fault)
	}
	out := admitted{problems: a.Problems}
	for _, o := range a.Objects {
		content := map[string]any{}
		if err := kjson.Unmarshal(o.JSON, &content); err != nil {
			return admitted{}, err
		}
		m := manifest.Manifest{Object: &unstructured.Unstructured{Object: content}, Origin: o.Origin}
		out.objects = append(out.objects, object{Manifest: m, Links: o.Links})
	}
	return out, nil
}

// outcome says how far the result of an evaluation holds.
type outcome int

const (
	// final: the same content gives the same result.
	final outcome = iota
	// limited: the same content gives it under the same limits.
	limited
	// passing: another time it may be another one.
	passing
)

// performApart does a piece of work in a process of its own. The error is not the
// user's.
func (c *Compiler) performApart(ctx context.Context, r request, l worker.Limits) (admitted, outcome, error) {
	var work bytes.Buffer
	if err := gob.NewEncoder(&work).Encode(r); err != nil {
		return admitted{}, passing, err
	}
	c.needed.Store(true)
	b, err := c.apart.Do(ctx, work.Bytes(), l)
	if err == nil {
		result, err := unpack(b)
		return result, final, err
	}
	message, how := overran(err, r, l)
	if message == "" {
		return admitted{}, passing, err
	}
	return admitted{problems: []document.Problem{{Pos: document.Pos{Path: r.path()}, Message: message}}}, how, nil
}

// overran says what work that ended its process did; empty when it was not to
// blame.
func overran(err error, r request, l worker.Limits) (string, outcome) {
	what, look := r.what()
	var died *worker.DiedError
	switch {
	case errors.Is(err, worker.ErrTimeout):
		return fmt.Sprintf("%s took longer than %s and was ended: %s, or set spec.compile.timeout of the Source", what, l.Timeout, look), limited
	case errors.Is(err, worker.ErrMemory):
		return fmt.Sprintf("%s used more than %d MiB of memory and was ended: %s, or set spec.compile.memory of the Source", what, l.Memory>>20, look), limited
	case errors.As(err, &died) && strings.Contains(died.Reason, "stack exceeds"):
		return what + " goes deeper and deeper without end: look for a definition that refers to itself", final
	case errors.As(err, &died) && r.Encrypted:
		return fmt.Sprintf("%s has ended its process; it is tried again, and if it happens again: %s", what, look), passing
	case errors.As(err, &died):
		return fmt.Sprintf("%s has ended its process (%s); it is tried again, and if it happens again: %s", what, died.Reason, look), passing
	}
	return "", passing
}
