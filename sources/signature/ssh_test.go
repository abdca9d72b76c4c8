package signature

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// armored builds an SSH signature of a key by hand.
func armored(key ssh.PublicKey, namespace, hash string, payload []byte, sign func([]byte) []byte) []byte {
	digest := sha256.Sum256(payload)
	covered := append([]byte(magic), ssh.Marshal(struct {
		Namespace, Reserved, HashAlgorithm string
		Digest                             []byte
	}{namespace, "", hash, digest[:]})...)
	body := ssh.Marshal(sshsig{Version: 1, PublicKey: key.Marshal(), Namespace: namespace, HashAlgorithm: hash, Signature: sign(covered)})
	return pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: append([]byte(magic), body...)})
}

// TestSecurityKey: a signature as a hardware key makes it, of which the user's
// touch is a part.
func TestSecurityKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const application = "ssh:"
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, application}))
	if err != nil {
		t.Fatal(err)
	}
	sign := func(flags byte) func([]byte) []byte {
		return func(covered []byte) []byte {
			app, message := sha256.Sum256([]byte(application)), sha256.Sum256(covered)
			blob := append(append(app[:], flags, 0, 0, 0, 7), message[:]...)
			return ssh.Marshal(struct {
				Format string
				Blob   []byte
				Rest   []byte `ssh:"rest"`
			}{ssh.KeyAlgoSKED25519, ed25519.Sign(private, blob), []byte{flags, 0, 0, 0, 7}})
		}
	}
	signers := []allowed{{line: 1, principals: "alice", key: key}}
	payload := []byte("content")
	if who, err := verifySSH(signers, armored(key, "git", "sha256", payload, sign(1)), payload, time.Now()); err != nil || !strings.HasPrefix(who, "alice, ED25519-SK SHA256:") {
		t.Errorf("%q %v", who, err)
	}
	if _, err := verifySSH(signers, armored(key, "git", "sha256", payload, sign(0)), payload, time.Now()); err == nil {
		t.Error("a signature that nobody touched the key for is taken")
	}
}

func TestSignaturesThatAreRefused(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	by := func(algorithm string) func([]byte) []byte {
		return func(covered []byte) []byte {
			sig, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, covered, algorithm)
			if err != nil {
				t.Fatal(err)
			}
			return ssh.Marshal(sig)
		}
	}
	key, payload := signer.PublicKey(), []byte("content")
	signers := []allowed{{principals: "alice", key: key}}
	good := armored(key, "git", "sha256", payload, by(ssh.KeyAlgoRSASHA256))
	for name, c := range map[string]struct {
		armored []byte
		want    string
	}{
		"good":               {good, ""},
		"SHA-1":              {armored(key, "git", "sha256", payload, by(ssh.KeyAlgoRSA)), "must sign with rsa-sha2-256 or rsa-sha2-512"},
		"another namespace":  {armored(key, "file", "sha256", payload, by(ssh.KeyAlgoRSASHA256)), `for the namespace "file", not for git`},
		"another hash":       {armored(key, "git", "md5", payload, by(ssh.KeyAlgoRSASHA256)), `over a hash by "md5"`},
		"another content":    {armored(key, "git", "sha256", []byte("other"), by(ssh.KeyAlgoRSASHA256)), "does not match the content"},
		"something after it": {append(good, "x"...), "malformed"},
		"cut short":          {good[:len(good)/2], "malformed"},
		"no signature":       {armored(key, "git", "sha256", payload, func([]byte) []byte { return nil }), "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifySSH(signers, c.armored, payload, time.Now())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
