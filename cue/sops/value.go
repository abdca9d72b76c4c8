package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// sealed is one encrypted value as it is written:
// ENC[AES256_GCM,data:…,iv:…,tag:…,type:…].
type sealed struct {
	data, iv []byte
	kind     string
}

var errNotSealed = errors.New("not written as SOPS does")

// parse reads an encrypted value.
func parse(text string) (sealed, error) {
	var s sealed
	rest, ok := strings.CutPrefix(text, mark)
	if !ok {
		return s, errNotSealed
	}
	if rest, ok = strings.CutSuffix(rest, "]"); !ok {
		return s, errNotSealed
	}
	parts := strings.Split(rest, ",")
	if len(parts) != 4 {
		return s, errNotSealed
	}
	var raw [3][]byte
	for i, name := range []string{"data:", "iv:", "tag:"} {
		value, ok := strings.CutPrefix(parts[i], name)
		if !ok {
			return s, errNotSealed
		}
		var err error
		if raw[i], err = base64.StdEncoding.DecodeString(value); err != nil {
			return s, errNotSealed
		}
	}
	if len(raw[1]) == 0 || len(raw[1]) > 64 || len(raw[2]) != 16 {
		return s, errNotSealed
	}
	if s.kind, ok = strings.CutPrefix(parts[3], "type:"); !ok {
		return s, errNotSealed
	}
	s.data, s.iv = append(raw[0], raw[2]...), raw[1]
	return s, nil
}

// comment is an encrypted comment that stands where a value does.
type comment string

// open decrypts a value. The path that it stands at is authenticated with it.
func (s sealed) open(key []byte, path string) (any, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(s.iv))
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, s.iv, s.data, []byte(path))
	if err != nil {
		return nil, errors.New("it was changed, or moved here from another place")
	}
	return typed(s.kind, string(plain))
}

var errType = errors.New("its type is not one that SOPS writes")

// typed is a decrypted text as the value that it was. An error does not quote it.
func typed(kind, text string) (any, error) {
	wrong := errors.New("what is in it is not of the type that is written there")
	switch kind {
	case "str", "bytes":
		return text, nil
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, wrong
		}
		return n, nil
	case "float":
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, wrong
		}
		return f, nil
	case "bool":
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, wrong
		}
		return b, nil
	case "time":
		var t time.Time
		if err := t.UnmarshalText([]byte(text)); err != nil {
			return nil, wrong
		}
		return t, nil
	case "comment":
		return comment(text), nil
	}
	return nil, errType
}

// hashed is a value as it goes into the checksum of a file.
func hashed(v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case bool:
		if v {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return v.MarshalText()
	}
	return nil, errors.New("a value is of a type that SOPS does not write")
}

// shown is the text of a value that no message may hold.
func shown(v any) string {
	switch v := v.(type) {
	case comment:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	}
	b, err := hashed(v)
	if err != nil {
		return ""
	}
	return string(b)
}
