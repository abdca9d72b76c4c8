package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"berth.dev/berth/engine/store"
)

// keysHeader carries the key file of a backup, in base64.
const keysHeader = "Berth-Secrets-Keys"

func backupCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save everything that the cluster's store holds",
		Long: `Save everything that the cluster's store holds, as it is at one moment, while
the server goes on. FILE is there when the backup is whole, or not at all; -
writes it to the standard output.

Secrets stay encrypted in it. To read them again, a restore needs the key: keep
a copy of secrets.key, from the server's data directory, in another place than
the backups. Pushed repositories and images are not part of a backup.`,
		Example: `  berth backup shop.backup
  berth backup - | gzip > shop.backup.gz`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			b, err := saveBackup(cmd.Context(), r, args[0], cmd.OutOrStdout())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "saved %d pairs at revision %d; Secrets in it are encrypted: keep a copy of the server's secrets.key apart from it\n", b.Pairs, b.Revision)
			return nil
		},
	}
	c.register(cmd.Flags())
	return cmd
}

// saveBackup fetches a backup and verifies it on the way.
func saveBackup(ctx context.Context, r *remote, file string, stdout io.Writer) (*store.Backup, error) {
	answer, err := r.call(ctx, http.MethodGet, "/berth/v1/backup", nil, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if file == "-" {
		return store.ReadBackup(io.TeeReader(answer.Body, stdout))
	}
	tmp := file + ".part"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	b, err := store.ReadBackup(io.TeeReader(answer.Body, f))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		os.Remove(tmp)
		return nil, fmt.Errorf("save the backup: %w", err)
	}
	return b, nil
}

func restoreCommand() *cobra.Command {
	var c connection
	var keyFile, dataDir string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the cluster's store what a backup holds",
		Long: `Replace everything in the cluster's store by a backup, in one transaction, while
the server goes on. What was written since the backup is gone; Sources are then
applied again as their repositories say. A backup that is cut off or altered is
refused as a whole.

With --data-dir the store is made before the first start of a server, in a data
directory that has none. For a store in etcd, start the server first, with the
secrets.key of the backup, and restore then.`,
		Example: `  berth restore shop.backup
  berth restore shop.backup --key-file old/secrets.key    after the key was rotated
  berth restore shop.backup --data-dir /var/lib/berth     before the first start`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := openBackup(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.Close()
			if dataDir != "" {
				return restoreOffline(in, dataDir, keyFile, cmd.OutOrStdout())
			}
			r, err := c.open()
			if err != nil {
				return err
			}
			return restoreOnline(cmd.Context(), r, in, keyFile, cmd.OutOrStdout())
		},
	}
	c.register(cmd.Flags())
	cmd.Flags().StringVar(&keyFile, "key-file", "", "copy of the secrets.key of the time of the backup (default: the server's present one)")
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "make the store of a server that was never started, in this directory")
	return cmd
}

func openBackup(name string, stdin io.Reader) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(stdin), nil
	}
	return os.Open(name)
}

func restoreOnline(ctx context.Context, r *remote, in io.Reader, keyFile string, out io.Writer) error {
	header := http.Header{}
	if keyFile != "" {
		keys, err := os.ReadFile(keyFile)
		if err != nil {
			return err
		}
		header.Set(keysHeader, base64.StdEncoding.EncodeToString(keys))
	}
	response, err := r.call(ctx, http.MethodPost, "/berth/v1/restore", in, header)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var a restoreAnswer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return fmt.Errorf("read the server's answer: %w; whether the backup was restored is not known: see berth status", err)
	}
	fmt.Fprintf(out, "restored the backup of %s (revision %d): %d pairs written, %d deleted, %d were the same; the store is at revision %d\n",
		a.Backup.Time.Local().Format("2006-01-02 15:04:05"), a.Backup.Revision, a.Did.Written, a.Did.Deleted, a.Did.Same, a.Did.Revision)
	return nil
}

// restoreOffline makes the store of a server that does not run yet.
func restoreOffline(in io.Reader, dir, keyFile string, out io.Writer) error {
	b, err := store.ReadBackup(in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockDataDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	path := filepath.Join(dir, storeFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; nothing was changed: start the server and restore without --data-dir, or move the file away", path)
	}
	if err := takeKeys(dir, keyFile); err != nil {
		return err
	}
	forgetLeader(b)
	if err := b.Create(path); err != nil {
		return err
	}
	fmt.Fprintf(out, "made %s from the backup of %s with %d pairs; start the server with berth up --data-dir %s\n",
		path, b.Time.Local().Format("2006-01-02 15:04:05"), b.Pairs, dir)
	return nil
}

// takeKeys puts the keys of a backup where the server looks for them.
func takeKeys(dir, keyFile string) error {
	if keyFile == "" {
		return nil
	}
	path := filepath.Join(dir, keysFile)
	keys, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	if there, err := os.ReadFile(path); err == nil && !bytes.Equal(there, keys) {
		return fmt.Errorf("%s is there already and holds other keys; nothing was changed: move it away first", path)
	}
	return store.WriteFile(path, keys)
}

func secretsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "secrets",
		Short:   "Look after the key that Secrets are encrypted with",
		Example: "  berth secrets rotate-key",
	}
	var c connection
	rotate := &cobra.Command{
		Use:   "rotate-key",
		Short: "Encrypt all Secrets with a new key and drop the old one",
		Long: `Encrypt all Secrets in the store with a new key and drop the old one, while the
server goes on. Backups made before still need the old key: keep its copy as
long as you keep them.`,
		Example: "  berth secrets rotate-key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := c.open()
			if err != nil {
				return err
			}
			var a rotateAnswer
			if err := r.post(cmd.Context(), "/berth/v1/secrets/rotate-key", nil, &a); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d sealed values (Secrets, ConfigMaps and what is kept of commits) are encrypted with a new key; copy %s of the server to where you keep its copies\n", a.Secrets, a.KeyFile)
			return nil
		},
	}
	c.register(rotate.Flags())
	cmd.AddCommand(rotate)
	return cmd
}
