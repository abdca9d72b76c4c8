package signature

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// namespace is that of Git's signatures.
const namespace = "git"

// magic begins a signature and what it covers, OpenSSH's PROTOCOL.sshsig.
const magic = "SSHSIG"

// sshsig is what the armor of an SSH signature holds.
type sshsig struct {
	Version       uint32
	PublicKey     []byte
	Namespace     string
	Reserved      string
	HashAlgorithm string
	Signature     []byte
}

var errMalformed = errors.New("has a malformed SSH signature")

// verifySSH says which of the allowed signers made a signature at a time.
func verifySSH(signers []allowed, armored, payload []byte, at time.Time) (string, error) {
	s, key, err := readSSH(armored)
	if err != nil {
		return "", err
	}
	name := keyName(key)
	if err := checkSSH(s, key, payload); err != nil {
		return "", fmt.Errorf("names the key %s as its signer: %w", name, err)
	}
	found, reason := "", fmt.Sprintf("is signed by the key %s, which is not allowed; add it to spec.verify.allowedSigners if it is to be trusted", name)
	for _, a := range signers {
		if !bytes.Equal(a.key.Marshal(), key.Marshal()) {
			continue
		}
		switch {
		case !a.signs(namespace):
			reason = fmt.Sprintf("is signed by the key %s, which spec.verify.allowedSigners (line %d) does not allow for the namespace git", name, a.line)
		case !a.before.IsZero() && !at.Before(a.before):
			reason = fmt.Sprintf("is signed at %s by the key %s, which expired at %s", words(at), name, words(a.before))
		case !a.after.IsZero() && at.Before(a.after):
			reason = fmt.Sprintf("is signed at %s by the key %s, which is valid only from %s on", words(at), name, words(a.after))
		default:
			found = a.principals
		}
		if found != "" {
			return found + ", " + name, nil
		}
	}
	return "", errors.New(reason)
}

func words(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func readSSH(armored []byte) (sshsig, ssh.PublicKey, error) {
	var s sshsig
	block, rest := pem.Decode(armored)
	if block == nil || block.Type != "SSH SIGNATURE" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return s, nil, errMalformed
	}
	body, ok := bytes.CutPrefix(block.Bytes, []byte(magic))
	if !ok || ssh.Unmarshal(body, &s) != nil || s.Version != 1 {
		return s, nil, errMalformed
	}
	key, err := ssh.ParsePublicKey(s.PublicKey)
	if err != nil {
		return s, nil, errMalformed
	}
	if strings.Contains(key.Type(), "-cert-v") {
		return s, nil, errors.New("is signed with a certificate, which is not supported; sign with the key itself")
	}
	if !keyType(key.Type()) {
		return s, nil, fmt.Errorf("is signed with a key of the type %s, which is not supported; use ssh-ed25519", key.Type())
	}
	return s, key, nil
}

// checkSSH checks that key has signed payload.
func checkSSH(s sshsig, key ssh.PublicKey, payload []byte) error {
	if s.Namespace != namespace {
		return fmt.Errorf("the signature is for the namespace %q, not for git", s.Namespace)
	}
	var digest []byte
	switch s.HashAlgorithm {
	case "sha256":
		sum := sha256.Sum256(payload)
		digest = sum[:]
	case "sha512":
		sum := sha512.Sum512(payload)
		digest = sum[:]
	default:
		return fmt.Errorf("the signature is over a hash by %q; must be sha256 or sha512", s.HashAlgorithm)
	}
	var signature ssh.Signature
	if ssh.Unmarshal(s.Signature, &signature) != nil {
		return errors.New("the signature is malformed")
	}
	if key.Type() == ssh.KeyAlgoRSA && signature.Format != ssh.KeyAlgoRSASHA256 && signature.Format != ssh.KeyAlgoRSASHA512 {
		return fmt.Errorf("the signature is of the type %s; an RSA key must sign with rsa-sha2-256 or rsa-sha2-512", signature.Format)
	}
	covered := ssh.Marshal(struct {
		Namespace, Reserved, HashAlgorithm string
		Digest                             []byte
	}{s.Namespace, s.Reserved, s.HashAlgorithm, digest})
	if key.Verify(append([]byte(magic), covered...), &signature) != nil {
		return errors.New("the signature does not match the content, which was changed after it was signed")
	}
	return nil
}

// keyName is a key as ssh-keygen and git show it.
func keyName(key ssh.PublicKey) string {
	kind := map[string]string{
		ssh.KeyAlgoED25519: "ED25519", ssh.KeyAlgoRSA: "RSA", ssh.KeyAlgoSKED25519: "ED25519-SK", ssh.KeyAlgoSKECDSA256: "ECDSA-SK",
		ssh.KeyAlgoECDSA256: "ECDSA", ssh.KeyAlgoECDSA384: "ECDSA", ssh.KeyAlgoECDSA521: "ECDSA",
	}[key.Type()]
	return kind + " " + ssh.FingerprintSHA256(key)
}
