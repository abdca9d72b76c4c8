package main

import (
	"bytes"
	"errors"
	"testing"
)

// TestAPlanSaysWhatKeepsItBack beside the plan, and that something would change.
func TestAPlanSaysWhatKeepsItBack(t *testing.T) {
	var out, said bytes.Buffer
	o := planOptions{output: "text", color: colorNever, stdout: &out, stderr: &said}
	err := o.show(planAnswer{Text: "Plan: 1 to delete\n", Changes: true, Held: "would delete all 1 objects of the Source", Later: "waits for its sync window"})
	if !errors.Is(err, exitChanges) || out.String() != "Plan: 1 to delete\n" {
		t.Errorf("%v, %q", err, out.String())
	}
	if want := "it would be held: it would delete all 1 objects of the Source\nlater: it waits for its sync window\n"; said.String() != want {
		t.Errorf("got %q, want %q", said.String(), want)
	}
}
