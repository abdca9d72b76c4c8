package cue

import (
	"fmt"
	"slices"
	"strings"

	"berth.dev/berth/cue/check"
	"berth.dev/berth/cue/document"
)

// containers checks what each container says of itself: ports that its probes
// and hooks name must be there, and of two variables of one name the last counts.
func containers(spec *document.Node, at string) []document.Problem {
	var out []document.Problem
	for _, list := range []string{"initContainers", "containers"} {
		found := spec.Get(list)
		if found == nil {
			continue
		}
		for i, c := range found.Items {
			where := fmt.Sprintf("%s.%s[%d]", at, list, i)
			out = append(out, handlers(c, where)...)
			out = append(out, variables(c, where)...)
		}
	}
	return out
}

// handlers looks up the ports that probes and hooks name.
func handlers(c *document.Node, at string) []document.Problem {
	var names []string
	if ports := c.Get("ports"); ports != nil {
		for _, p := range ports.Items {
			if name := p.Text("name"); name != "" {
				names = append(names, name)
			}
		}
	}
	var out []document.Problem
	for _, way := range [][]string{{"livenessProbe"}, {"readinessProbe"}, {"startupProbe"}, {"lifecycle", "postStart"}, {"lifecycle", "preStop"}} {
		for _, kind := range []string{"httpGet", "tcpSocket"} {
			handler := c
			for _, name := range append(slices.Clone(way), kind) {
				handler = handler.Get(name)
			}
			name := handler.Text("port")
			if name == "" || slices.Contains(names, name) {
				continue
			}
			message := fmt.Sprintf("the container has no port %q; ", name)
			switch near := check.Nearest(name, names); {
			case near != "":
				message += fmt.Sprintf("did you mean %q?", near)
			case len(names) > 0:
				message += "its ports are " + strings.Join(names, ", ")
			default:
				message += "give one of its ports that name, or use the number here"
			}
			out = append(out, document.Problem{Pos: handler.Get("port").Pos, Field: fmt.Sprintf("%s.%s.%s.port", at, strings.Join(way, "."), kind), Message: message})
		}
	}
	return out
}

// variables warns of those that are given twice.
func variables(c *document.Node, at string) []document.Problem {
	env := c.Get("env")
	if env == nil {
		return nil
	}
	var out []document.Problem
	seen := map[string]bool{}
	for i, e := range env.Items {
		name := e.Text("name")
		if name != "" && seen[name] {
			out = append(out, document.Problem{Pos: e.Get("name").Pos, Warning: true, Field: fmt.Sprintf("%s.env[%d].name", at, i),
				Message: fmt.Sprintf("the variable %s is given twice, and the last one counts; remove one", name)})
		}
		seen[name] = true
	}
	return out
}
