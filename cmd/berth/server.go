package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"berth.dev/berth/engine/access"
)

func serverCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane alone, without the agent of this machine",
		Long: `Run the control plane alone: the API, the status page and the engine, without an
agent and without containers.

Several servers on one etcd are one cluster: each answers everything, and one of
them leads. The first makes the key of Secrets; copy that one file to the others
(mode 0600), the rest they take from etcd. docs/high-availability.md has the way.`,
		Example: `  berth server
  berth server --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 \
      --store-ca ca.pem --store-cert berth.pem --store-key berth-key.pem
  berth server --store etcd://127.0.0.1:2379 --key-file /etc/berth/secrets.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o, cmd.ErrOrStderr()) },
	}
	o.registerServer(cmd.Flags())
	cmd.Flags().StringVar(&o.nodeName, "name", "", "name of this server among the others (default: the host name)")
	return cmd
}

// serve runs a server until the context ends.
func serve(ctx context.Context, o options, stderr io.Writer) error {
	if err := o.complete(); err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fmt.Errorf("--log-level %q is not debug, info, warn or error", o.logLevel)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	quietLibraries(log)
	debug.SetGCPercent(gcPercent)
	if err := os.MkdirAll(o.dataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockDataDir(o.dataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := newServer(ctx, o, log)
	if err != nil {
		return err
	}
	address := reachable(s.listener.Addr())
	config, err := writeKubeconfig(o.dataDir, address)
	if err != nil {
		return s.abandon(err)
	}
	return s.run(ctx, func() {
		log.Info("berth is up", "address", address, "kubeconfig", config, "token", access.AdminTokenFile(o.dataDir))
	})
}
