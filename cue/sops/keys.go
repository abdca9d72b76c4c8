package sops

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Bounds of what is read of a hostile file: each recipient of it costs an attempt
// with each key.
const (
	maxRecipients = 64
	maxHeader     = 1 << 20
	maxPlain      = 4 << 20
	maxIdentities = 64
)

// Keys are age identities. A nil *Keys opens nothing.
type Keys struct {
	// From says where they are from, in words, such as the Secret shop/age.
	From       string
	identities []age.Identity
	recipients []string
	id         string
}

// ParseKeys reads identities as age-keygen writes them. Each text may hold
// several. No error quotes what is in them.
func ParseKeys(from string, texts ...string) (*Keys, error) {
	k := &Keys{From: from}
	var secrets []string
	for _, text := range texts {
		found, err := age.ParseIdentities(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%s holds something that is no age identity; it must be lines as age-keygen writes them: AGE-SECRET-KEY-1…", from)
		}
		for _, identity := range found {
			var recipient, secret string
			switch i := identity.(type) {
			case *age.X25519Identity:
				recipient, secret = i.Recipient().String(), i.String()
			case *age.HybridIdentity:
				recipient, secret = i.Recipient().String(), i.String()
			default:
				return nil, fmt.Errorf("%s holds an age identity of a kind that is not supported; make one with age-keygen", from)
			}
			if slices.Contains(secrets, secret) {
				continue
			}
			k.identities = append(k.identities, identity)
			k.recipients = append(k.recipients, recipient)
			secrets = append(secrets, secret)
		}
	}
	if len(k.identities) == 0 {
		return nil, fmt.Errorf("%s holds no age identity", from)
	}
	if len(k.identities) > maxIdentities {
		return nil, fmt.Errorf("%s holds more than %d age identities", from, maxIdentities)
	}
	slices.Sort(secrets)
	sum := sha256.Sum256([]byte(strings.Join(secrets, "\n")))
	k.id = string(sum[:])
	return k, nil
}

// ID is the same for the same identities, and tells nothing of them.
func (k *Keys) ID() string {
	if k == nil {
		return ""
	}
	return k.id
}

// short is a public key as a message shows it: those of hybrid keys take pages.
func short(recipient string) string {
	if len(recipient) <= 80 {
		return recipient
	}
	return strings.ToValidUTF8(recipient[:40], "") + "…"
}

// List is public keys in one line.
func List(recipients []string) string {
	const most = 6
	out := make([]string, 0, most)
	for _, r := range recipients[:min(len(recipients), most)] {
		out = append(out, short(r))
	}
	if n := len(recipients) - most; n > 0 {
		out = append(out, fmt.Sprintf("%d more", n))
	}
	return strings.Join(out, ", ")
}

const (
	binaryHead = "age-encryption.org/v1\n"
	armorHead  = armor.Header
)

func isAge(content []byte) bool {
	return bytes.HasPrefix(content, []byte(binaryHead)) || bytes.HasPrefix(bytes.TrimLeft(content, " \t\r\n"), []byte(armorHead))
}

var (
	errNotForUs = errors.New("not for these keys")
	errDamaged  = errors.New("damaged")
	errPassword = errors.New("it is encrypted with a passphrase, which nobody can give here; encrypt it for the public key of Berth: age -r age1…")
	errMany     = fmt.Errorf("it is encrypted for more than %d recipients", maxRecipients)
)

// decrypt opens what age has encrypted; at most limit bytes of it.
func (k *Keys) decrypt(content []byte, limit int64) ([]byte, error) {
	var r io.Reader = bytes.NewReader(content)
	if !bytes.HasPrefix(content, []byte(binaryHead)) {
		raw, err := io.ReadAll(armor.NewReader(r))
		if err != nil {
			return nil, errDamaged
		}
		content, r = raw, bytes.NewReader(raw)
	}
	if err := acceptable(content); err != nil {
		return nil, err
	}
	plain, err := age.Decrypt(r, k.identities...)
	var no *age.NoIdentityMatchError
	if errors.As(err, &no) {
		return nil, errNotForUs
	} else if err != nil {
		return nil, errDamaged
	}
	out, err := io.ReadAll(io.LimitReader(plain, limit+1))
	if err != nil {
		return nil, errDamaged
	}
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("it is more than %d MiB", maxPlain>>20)
	}
	return out, nil
}

// acceptable looks at the header before any key is tried: a passphrase would make
// whoever tries it work for as long as the file asks.
func acceptable(content []byte) error {
	s := bufio.NewScanner(bytes.NewReader(content[:min(len(content), maxHeader)]))
	n := 0
	for s.Scan() {
		line := s.Text()
		if strings.HasPrefix(line, "---") {
			return nil
		}
		kind, isStanza := strings.CutPrefix(line, "-> ")
		if !isStanza {
			continue
		}
		if kind, _, _ = strings.Cut(kind, " "); kind == "scrypt" {
			return errPassword
		}
		if n++; n > maxRecipients {
			return errMany
		}
	}
	return errDamaged
}

func (k *Keys) openAge(content []byte) ([]byte, error) {
	plain, err := k.decrypt(content, maxPlain)
	switch {
	case errors.Is(err, errNotForUs):
		return nil, fmt.Errorf("the file is encrypted with age, and no key that Berth has opens it: %s has %s; encrypt the file for one of those (age -r), or add the key that opens it to %s",
			k.From, List(k.recipients), k.From)
	case errors.Is(err, errDamaged):
		return nil, errors.New("the file is encrypted with age, and is damaged: it was changed or cut off; encrypt it anew")
	case err != nil:
		return nil, fmt.Errorf("the file is encrypted with age, and cannot be opened: %w", err)
	}
	return plain, nil
}

// dataKey opens the key of a file of SOPS.
func (k *Keys) dataKey(m *metadata) ([]byte, error) {
	ours := func(e entry) int {
		if slices.Contains(k.recipients, e.recipient) {
			return 0
		}
		return 1
	}
	entries := slices.Clone(m.age)
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(ours(a), ours(b)) })
	var failed error
	for _, e := range entries {
		key, err := k.decrypt([]byte(e.enc), 64)
		if err == nil && len(key) != 32 {
			err = errDamaged
		}
		if err == nil {
			return key, nil
		}
		if failed == nil && !errors.Is(err, errNotForUs) {
			failed = err
		}
	}
	switch {
	case failed == nil:
		return nil, &fault{m.line, fmt.Sprintf("the file is encrypted with SOPS, and no key that Berth has opens it: it is for %s, and %s has %s; run sops updatekeys with one of those in .sops.yaml, or add the key that opens it to %s",
			List(m.names()), k.From, List(k.recipients), k.From)}
	case errors.Is(failed, errDamaged):
		return nil, &fault{m.line, "the file is encrypted with SOPS, and the data key in it (sops.age) is damaged; take the file from an earlier commit, or encrypt it anew"}
	}
	return nil, &fault{m.line, "the file is encrypted with SOPS, and its data key (sops.age) cannot be opened: " + failed.Error()}
}
