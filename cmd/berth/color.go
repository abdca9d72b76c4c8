package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// When a plan is coloured.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// Colours of a terminal (ECMA-48, "Select Graphic Rendition").
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

// colored says whether out is to be coloured; auto is for terminals, unless
// NO_COLOR is set (no-color.org).
func colored(mode string, out io.Writer) bool {
	if mode != colorAuto {
		return mode == colorAlways
	}
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// paint colours the lines of a plan that name what is created, changed and deleted.
func paint(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		color := ""
		switch body := strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(body, "  + "):
			color = green
		case strings.HasPrefix(body, "  ~ "), strings.HasPrefix(body, "  ± "):
			color = yellow
		case strings.HasPrefix(body, "  - "):
			color = red
		}
		if color == "" {
			b.WriteString(line)
			continue
		}
		b.WriteString(color + strings.TrimSuffix(line, "\n") + plain + "\n")
	}
	return b.String()
}
