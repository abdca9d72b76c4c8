package signature

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// keyring is public keys of OpenPGP.
type keyring struct{ openpgp.EntityList }

// openPGPKeys reads public keys in one or several blocks of ASCII armor.
func openPGPKeys(text string) (*keyring, error) {
	const begin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	var out openpgp.EntityList
	for i, block := range strings.Split(text, begin) {
		if i == 0 {
			continue
		}
		keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(begin + block))
		if err != nil {
			return nil, fmt.Errorf("spec.verify.openPGPKeys: block %d is no public key; it must be what gpg --armor --export prints", i)
		}
		out = append(out, keys...)
	}
	if len(out) == 0 {
		return nil, errors.New("spec.verify.openPGPKeys holds no public key; it must be what gpg --armor --export prints")
	}
	return &keyring{out}, nil
}

// verify says whose key made a signature that is good now.
func (k *keyring) verify(armored string, payload []byte, now time.Time) (string, error) {
	block, err := armor.Decode(strings.NewReader(armored))
	if err != nil || block.Type != openpgp.SignatureType {
		return "", errors.New("has a malformed OpenPGP signature")
	}
	body, err := io.ReadAll(io.LimitReader(block.Body, 1<<20))
	if err != nil {
		return "", errors.New("has a malformed OpenPGP signature")
	}
	by := issuer(body)
	config := &packet.Config{Time: func() time.Time { return now }}
	sig, signer, err := openpgp.VerifyDetachedSignature(k.EntityList, bytes.NewReader(payload), bytes.NewReader(body), config)
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return "", fmt.Errorf("is signed by the OpenPGP key %s, which is not allowed; add it to spec.verify.openPGPKeys if it is to be trusted", by)
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return "", fmt.Errorf("is signed by the OpenPGP key %s, which has expired; renew it and update spec.verify.openPGPKeys", by)
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return "", fmt.Errorf("has a signature by the OpenPGP key %s that has expired", by)
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return "", fmt.Errorf("is signed by the OpenPGP key %s, which is revoked", by)
	case err != nil:
		return "", fmt.Errorf("names the OpenPGP key %s as its signer: the signature does not match the content, which was changed after it was signed", by)
	case sig.SigType != packet.SigTypeBinary:
		return "", errors.New("has an OpenPGP signature that is not one of a document")
	case !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, sig.Hash):
		return "", fmt.Errorf("is signed by the OpenPGP key %s over a hash by %s; must be SHA-256 or stronger", by, sig.Hash)
	}
	names := slices.Sorted(maps.Keys(signer.Identities))
	if id := signer.PrimaryIdentity(); id != nil {
		names = []string{id.Name}
	}
	return fmt.Sprintf("%s, OpenPGP %X", strings.Join(names, ", "), signer.PrimaryKey.Fingerprint), nil
}

// issuer is the fingerprint, or the key ID, that a signature names.
func issuer(body []byte) string {
	p, err := packet.NewReader(bytes.NewReader(body)).Next()
	sig, ok := p.(*packet.Signature)
	switch {
	case err != nil || !ok:
		return "of no name"
	case len(sig.IssuerFingerprint) > 0:
		return fmt.Sprintf("%X", sig.IssuerFingerprint)
	case sig.IssuerKeyId != nil:
		return fmt.Sprintf("%016X", *sig.IssuerKeyId)
	}
	return "of no name"
}
