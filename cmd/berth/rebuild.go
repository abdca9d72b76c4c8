package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/engine/recovery"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/nodeagent"
)

// opener opens the store of a data directory, and builds it anew when it is lost.
type opener struct {
	dataDir, node string
	keyFile       string
	resources     func(store.Store) *resources.Resources
	log           *slog.Logger
}

func (o *opener) path() string         { return filepath.Join(o.dataDir, storeFile) }
func (o *opener) recoveryPath() string { return filepath.Join(o.dataDir, recovery.File) }

// open never takes a damaged or missing file for a new cluster.
func (o *opener) open(ctx context.Context) (*store.Bolt, error) {
	pods, err := nodeagent.RecordedPods(o.dataDir)
	if err != nil {
		return nil, err
	}
	missing := false
	if _, err := os.Lstat(o.path()); errors.Is(err, fs.ErrNotExist) {
		_, noFile := os.Lstat(o.recoveryPath())
		missing = noFile == nil || len(pods) > 0
	}
	var damaged *store.DamagedError
	if !missing {
		b, err := store.OpenBolt(o.path())
		if !errors.As(err, &damaged) {
			return b, err
		}
	}
	if err := o.rebuild(ctx, damaged, pods); err != nil {
		return nil, err
	}
	return store.OpenBolt(o.path())
}

// rebuild puts a new store in the place of the one that is damaged, or missing
// when damaged is nil. It takes effect with one rename.
func (o *opener) rebuild(ctx context.Context, damaged *store.DamagedError, pods []*corev1.Pod) error {
	in := recovery.Input{
		Path: o.path() + ".rebuild", Wrap: o.seal, Resources: o.resources, Node: o.node, Pods: pods, Now: time.Now(),
	}
	found := fmt.Sprintf("the store %s is missing, but this directory belongs to a cluster", o.path())
	if damaged != nil {
		found = damaged.Error()
		in.Intact = damaged.Intact()
	}
	var err error
	if in.Saved, err = recovery.Read(o.recoveryPath(), o.resources(nil)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.log.Error("what was kept to rebuild the store cannot be read: Sources and workloads that the store itself does not show any more are not brought back", "err", err)
	}
	if in.Saved == nil && len(in.Intact) == 0 && len(pods) == 0 {
		return fmt.Errorf("%s, and there is nothing to rebuild it from: put back a copy of the file; or move it away, and restore a backup with berth restore FILE --data-dir %s or start a new cluster", found, o.dataDir)
	}
	o.log.Error(found + "; it is rebuilt, and what runs is not stopped")
	result, err := recovery.Rebuild(ctx, in)
	if err != nil {
		return fmt.Errorf("rebuild the store: %w; nothing was changed", err)
	}
	aside := ""
	if damaged != nil {
		if aside, err = setAside(o.path(), in.Now); err != nil {
			return err
		}
	}
	if err := store.Install(in.Path, o.path()); err != nil {
		return err
	}
	o.tell(result, aside)
	return nil
}

// seal puts the encryption of Secrets around a store.
func (o *opener) seal(ctx context.Context, b *store.Bolt) (*store.Sealed, error) {
	return store.Seal(ctx, b, o.keyFile, resources.Sealed()...)
}

// setAside gives the file a second name, under which it stays.
func setAside(path string, now time.Time) (string, error) {
	name := path + ".damaged-" + now.UTC().Format("20060102T150405Z")
	aside := name
	err := os.Link(path, aside)
	for n := 2; errors.Is(err, fs.ErrExist); n++ { // again within the second
		aside = fmt.Sprintf("%s-%d", name, n)
		err = os.Link(path, aside)
	}
	if err != nil {
		return "", fmt.Errorf("keep the damaged file: %w", err)
	}
	return aside, nil
}

// tell says what was brought back and what was not.
func (o *opener) tell(r recovery.Result, aside string) {
	sources := "no Source"
	if len(r.Sources) > 0 {
		sources = "the Sources " + strings.Join(r.Sources, ", ")
	}
	o.log.Warn(fmt.Sprintf("the store was rebuilt: %s, %d running pods, %d objects in all; the Sources are now applied from their repositories", sources, r.Pods, r.Objects))
	o.log.Warn("not brought back: events, and Secrets, ConfigMaps and other objects that no Source holds, unless they could still be read")
	for _, lost := range r.Lost {
		o.log.Warn("not brought back: " + lost)
	}
	if aside != "" {
		o.log.Warn("the damaged file is kept as " + aside + "; remove it when you no longer need it, or restore a backup with berth restore")
	} else {
		o.log.Warn("to begin a new cluster instead, stop berth and empty the data directory " + o.dataDir)
	}
	if len(r.Sources) == 0 {
		o.log.Warn("add your Sources again: push to their repositories, or apply the objects of kind Source")
	}
}
