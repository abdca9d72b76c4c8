package main

import (
	"bytes"
	"os"
	"testing"
)

func TestAPlanIsPaintedByItsSigns(t *testing.T) {
	got := paint("Plan: 1 to create\n  + ConfigMap a\n  ~ Deployment b\n      x: 1 → 2\n  ± Job c\n  - Service d\n")
	want := "Plan: 1 to create\n\x1b[32m  + ConfigMap a\x1b[0m\n\x1b[33m  ~ Deployment b\x1b[0m\n      x: 1 → 2\n\x1b[33m  ± Job c\x1b[0m\n\x1b[31m  - Service d\x1b[0m\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestOnlyATerminalIsColoured(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if colored(colorAuto, file) || colored(colorAuto, &bytes.Buffer{}) || colored(colorNever, file) || !colored(colorAlways, &bytes.Buffer{}) {
		t.Error("a file or a pipe is coloured, or what is asked for is not heeded")
	}
}
