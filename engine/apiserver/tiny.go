package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// tiny is a number that Kubernetes' decoder of quantities would take minutes, and
// memory without bounds, to read: it writes out every digit of it. Quantities are
// counted in thousand-millionths.
var tiny = regexp.MustCompile(`[+-]?[0-9.]+[eE]-[0-9]{3,}`)

// tinyJSON finds such a number where a type has a quantity.
func tinyJSON(body []byte, into any) error {
	if !tiny.Match(body) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // a float would be 0
	var tree any
	if d.Decode(&tree) != nil {
		return nil // whoever decodes it says what is wrong
	}
	return tinyIn(tree, reflect.TypeOf(into))
}

func tinyIn(v any, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for _, item := range v {
			if err := tinyIn(item, t.Elem()); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, value := range v {
			if at := fieldType(t, name); at != nil {
				if err := tinyIn(value, at); err != nil {
					return err
				}
			}
		}
	case string, json.Number:
		if text := fmt.Sprint(v); t == reflect.TypeFor[resource.Quantity]() && tiny.MatchString(text) {
			return tinyNumber(text)
		}
	}
	return nil
}

// fieldType is the type of what JSON has under a name; nil when the type has
// nothing of the name.
func fieldType(t reflect.Type, name string) reflect.Type {
	if t.Kind() == reflect.Map {
		return t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return f.Type
		}
		if tag == "" && f.Anonymous {
			if at := fieldType(f.Type, name); at != nil {
				return at
			}
		}
	}
	return nil
}

// tinyProtobuf finds such a number in a protobuf message. A quantity is a message
// of its own that holds a text: its length, the tag 1 of a text, and the text's.
func tinyProtobuf(body []byte) error {
	for _, at := range tiny.FindAllIndex(body, -1) {
		for from := max(3, at[0]); from < at[1]; from++ {
			text := body[from:at[1]]
			if n := len(text); int(body[from-1]) == n && body[from-2] == 0x0a && int(body[from-3]) == n+2 && tiny.Match(text) {
				return tinyNumber(string(text))
			}
		}
	}
	return nil
}

func tinyNumber(text string) error {
	return fmt.Errorf("%.40q is too small a number for a quantity; the smallest is 1n, a thousand-millionth", text)
}
