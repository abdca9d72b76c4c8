package main

import (
	"cmp"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"berth.dev/berth/cue"
	"berth.dev/berth/cue/sops"
	"berth.dev/berth/engine/sync"
)

// ageKeyEnv is the variable with which sops finds its keys.
const ageKeyEnv = "SOPS_AGE_KEY_FILE"

// ageKeys are the flag that opens encrypted files where no cluster is asked.
type ageKeys struct{ file string }

func (a *ageKeys) register(f *pflag.FlagSet) {
	f.StringVar(&a.file, "age-key-file", "", "a file with the age identities that open encrypted files (default: $"+ageKeyEnv+")")
}

// decryption reads the keys. Without any, encrypted files are not looked into.
func (a ageKeys) decryption() (cue.Decryption, error) {
	file := cmp.Or(a.file, os.Getenv(ageKeyEnv))
	if file == "" {
		return cue.Decryption{Skip: true, Without: "to look into it, name the file with the age key: --age-key-file FILE, or " + ageKeyEnv}, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return cue.Decryption{}, fmt.Errorf("read the age keys: %w", err)
	}
	keys, err := sops.ParseKeys(file, string(text))
	return cue.Decryption{Keys: keys}, err
}

// decryptionOf is how the compiler opens the files of a Source.
func decryptionOf(d *sync.Decryption) cue.Decryption {
	if d == nil {
		return cue.Decryption{}
	}
	if d.Without != "" {
		return cue.Decryption{Without: d.Without}
	}
	keys, err := sops.ParseKeys(d.From, d.Keys...)
	if err != nil {
		return cue.Decryption{Without: err.Error()}
	}
	return cue.Decryption{Keys: keys}
}
