package sops

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// entry is the data key for one recipient.
type entry struct{ recipient, enc string }

// metadata is what SOPS notes in a file, under sops.
type metadata struct {
	// found: it is a file of SOPS.
	found bool
	// line of the recipients, and of the checksum.
	line, macLine int
	rules
	age          []entry
	mac          string
	lastModified time.Time
	// others are kinds of keys besides age.
	others []string
	groups bool
	fault  error
}

func (m *metadata) names() []string {
	out := make([]string, len(m.age))
	for i, e := range m.age {
		if out[i] = e.recipient; !recipient.MatchString(e.recipient) {
			out[i] = "a recipient that is none of age"
		}
	}
	return out
}

// recipient is a public key of age, which may be shown: others may hold anything.
var recipient = regexp.MustCompile(`^(age1[0-9a-z]+|ssh-(rsa|ed25519) [A-Za-z0-9+/=]+)( [\w.@-]*)?$`)

// metadataOf reads what is under sops.
func metadataOf(n *node) *metadata {
	m := &metadata{}
	if n == nil {
		return m
	}
	m.line, m.macLine = n.line, n.line
	if n.kind != mapping {
		return m
	}
	m.found = n.get("mac").text() != "" || n.get("lastmodified") != nil
	for _, f := range n.plainFields() {
		m.field(f)
	}
	if len(m.age) > maxRecipients {
		m.fail(m.line, errMany.Error())
	}
	return m
}

func (m *metadata) fail(line int, message string) {
	if m.fault == nil {
		m.fault = &fault{line, message}
	}
}

func (m *metadata) field(f field) {
	text := f.value.text()
	if b, ok := f.value.value.(bool); ok {
		text = fmt.Sprint(b)
	}
	switch f.key {
	case "age":
		m.line = f.line
		for _, item := range f.value.plainItems() {
			m.age = append(m.age, entry{item.get("recipient").text(), item.get("enc").text()})
		}
	case "mac":
		m.mac, m.macLine = text, f.line
	case "lastmodified":
		t, err := time.Parse(time.RFC3339, text)
		if at, ok := f.value.value.(time.Time); ok {
			t, err = at, nil
		}
		if err != nil {
			m.fail(f.line, "sops.lastmodified is no time, such as 2026-01-31T12:00:00Z; take the file from an earlier commit, or encrypt it anew")
		}
		m.lastModified = t
	case "key_groups":
		m.groups = len(f.value.items) > 0
	case "kms", "gcp_kms", "azure_kv", "hc_vault", "pgp", "hckms":
		if len(f.value.items) > 0 {
			m.others = append(m.others, f.key)
		}
	default:
		if rest, ok := strings.CutPrefix(f.key, "age__list_"); ok { // in a file of variables
			m.flat(rest, text)
			return
		}
		if err := m.rules.set(f.key, text); err != nil {
			m.fail(f.line, err.Error())
		}
	}
}

// flat reads a recipient out of a file of variables: 0__map_enc.
func (m *metadata) flat(rest, text string) {
	var i int
	var name string
	if n, err := fmt.Sscanf(rest, "%d__map_%s", &i, &name); n != 2 || err != nil || i < 0 || i > maxRecipients {
		return
	}
	for len(m.age) <= i {
		m.age = append(m.age, entry{})
	}
	switch name {
	case "recipient":
		m.age[i].recipient = text
	case "enc":
		m.age[i].enc = text
	}
}

// whole says what SOPS has noted and is there no longer.
func (m *metadata) whole() error {
	if !m.found {
		return &fault{m.line, "the file holds values that SOPS has encrypted, and what it notes of them (sops.mac, sops.lastmodified) is missing: " + damaged}
	}
	return nil
}

// damaged is what to do about a file that is not as SOPS wrote it.
const damaged = "a merge may have damaged it, or it was cut off; take the file from an earlier commit, or encrypt it anew"

// usable says why a file is one that cannot be opened with any key of age.
func (m *metadata) usable() error {
	if err := m.whole(); err != nil {
		return err
	}
	switch {
	case m.fault != nil:
		return m.fault
	case m.groups:
		return &fault{m.line, "the file is encrypted with SOPS for key groups (sops.key_groups), of which several keys are needed at once; only files for age recipients without groups are opened: remove key_groups from .sops.yaml and run sops updatekeys"}
	case len(m.age) == 0 && len(m.others) > 0:
		return &fault{m.line, fmt.Sprintf("the file is encrypted with SOPS for %s; only age is opened: add an age recipient to .sops.yaml and run sops updatekeys", strings.Join(m.others, ", "))}
	case len(m.age) == 0:
		return &fault{m.line, "the file is encrypted with SOPS and names no age recipient (sops.age); it may have been cut off: encrypt it anew"}
	}
	return nil
}
