package check

import (
	"fmt"
	"strings"

	"berth.dev/berth/cue/document"
)

// unknown says that an object has no such field, and what was meant: a field of
// nearly that name here, or one of that name above or below. It also returns the
// name of the field here that was meant, if any.
func unknown(n *document.Node, f document.Field, p *path) (message, meant string) {
	a, key := p.object, f.Key
	message = fmt.Sprintf("unknown field %q", key)
	if near := a.almost(n, key); near != "" {
		return message + fmt.Sprintf("; did you mean %q?", near), near
	}
	if homes := p.homes(f); homes != "" {
		return message + "; it belongs in " + homes, ""
	}
	near := a.containing(key)
	if near == "" {
		near = Nearest(key, a.names)
	}
	if near != "" {
		return message + fmt.Sprintf("; did you mean %q?", near), near
	}
	if maps := p.mapsFor(f); maps != "" {
		return message + "; it belongs in " + maps, ""
	}
	if count := len(a.names); count > 0 && count <= 12 {
		return message + "; the fields here are " + strings.Join(a.names, ", "), ""
	}
	return message + "; remove it, or move it to where it belongs", ""
}

// almost finds the field that a slip of the pen makes key of, or a required one
// whose name ends with it, such as secretName for name.
func (a *alternative) almost(n *document.Node, key string) string {
	for _, name := range a.names {
		if strings.EqualFold(name, key) {
			return name
		}
	}
	for _, name := range a.names {
		if len(key) > 2 && edits(strings.ToLower(key), strings.ToLower(name), 2) < 2 {
			return name
		}
	}
	if key == "" {
		return ""
	}
	end := strings.ToUpper(key[:1]) + key[1:]
	for _, name := range a.names {
		if a.fields[name].Required && n.Get(name) == nil && strings.HasSuffix(name, end) {
			return name
		}
	}
	return ""
}

// containing finds the one field whose name begins with key, or holds it.
func (a *alternative) containing(key string) string {
	if len(key) < 4 {
		return ""
	}
	found := ""
	for _, name := range a.names {
		if strings.Contains(strings.ToLower(name), strings.ToLower(key)) {
			if found != "" {
				return ""
			}
			found = name
		}
	}
	return found
}

// maxHomes bounds how many places are named for a field that stands elsewhere.
const maxHomes = 3

// homes names the nearest places for a field: below this object, else below the
// nearest one above it; nothing if there are many.
func (p *path) homes(f document.Field) string {
	key := f.Key
	for at := p; at != nil; at = at.up {
		if at.object == nil {
			continue
		}
		if at != p && at.object.fields[key] != nil {
			if at.up == nil {
				return "the top level"
			}
			return at.String()
		}
		if found := at.below(f); len(found) > maxHomes {
			return ""
		} else if len(found) > 0 {
			return joinOr(found)
		}
	}
	return ""
}

// below searches the objects below p level by level, and returns those of the
// first level that have the field; if some take its value, only those.
func (p *path) below(f document.Field) []string {
	type place struct {
		object *alternative
		at     *path
	}
	level := []place{{p.object, p}}
	seen := map[*Type]bool{}
	for len(level) > 0 {
		var next []place
		var found, fitting []string
		for _, here := range level {
			for _, name := range here.object.names {
				if name == "status" || name == "initContainers" || name == "ephemeralContainers" {
					continue
				}
				t, at := here.object.fields[name].Type.resolved(), here.at.key(name)
				if t.object() == nil && t.Elem() != nil {
					t, at = t.Elem().resolved(), &path{up: at, name: "[]"}
				}
				object := t.object()
				if object == nil {
					continue
				}
				if home := object.fields[f.Key]; home != nil {
					found = append(found, at.String())
					if home.Type.takesKind(f.Value) {
						fitting = append(fitting, at.String())
					}
				}
				if !seen[t] {
					seen[t] = true
					next = append(next, place{object, at})
				}
			}
		}
		if len(fitting) > 0 {
			return fitting
		}
		if len(found) > 0 {
			return found
		}
		level = next
	}
	return nil
}

// takesKind reports whether the type takes values of that kind at all.
func (t *Type) takesKind(n *document.Node) bool {
	for _, a := range t.flat() {
		if a.kinds&kindOf(n) != 0 {
			return true
		}
	}
	return false
}

// mapsFor names the maps of this object that take the field as an entry.
func (p *path) mapsFor(f document.Field) string {
	var found []string
	for _, name := range p.object.names {
		for _, m := range p.object.fields[name].Type.flat() {
			if m.values == nil || m.keys == nil || len(m.fields) > 0 {
				continue
			}
			c := &checker{}
			c.entry(f, &m, &path{})
			if len(c.problems) == 0 && f.Value.Kind != document.Faulty {
				found = append(found, p.key(name).String())
			}
		}
	}
	if len(found) > maxHomes {
		return ""
	}
	return joinOr(found)
}

func joinOr(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " or " + parts[len(parts)-1]
}
