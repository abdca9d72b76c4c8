package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/recovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFileHoldsWhatRunsAndNoValues(t *testing.T) {
	r, s := enginetest.Stored(t)
	path := filepath.Join(t.TempDir(), recovery.File)
	keeper := recovery.New(recovery.Options{Resources: r, Store: s, Path: path, Clock: clock.RealClock{}, Log: enginetest.Log(t)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- keeper.Run(ctx) }()
	if err := r.Create(t.Context(), &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "login"}, Data: map[string][]byte{"p": []byte("hunter2")}}
	if err := r.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	var saved *recovery.Saved
	enginetest.Eventually(t, 10*time.Second, func() string {
		var err error
		if saved, err = recovery.Read(path, r); err != nil {
			return err.Error()
		}
		for _, obj := range saved.Objects {
			if obj.GetName() == "shop" {
				return ""
			}
		}
		return "the Source is not in the file"
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(b); strings.Contains(text, "login") || strings.Contains(text, "aHVudGVyMg") {
		t.Errorf("the file shows a Secret:\n%s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}

	for name, change := range map[string][]byte{
		"cut off": b[:len(b)/2],
		"altered": bytes.Replace(b, []byte("shop"), []byte("shap"), 1),
		"empty":   {},
	} {
		if err := os.WriteFile(path, change, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := recovery.Read(path, r); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want an error that says so", name, err)
		}
	}
}
