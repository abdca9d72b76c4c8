package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"berth.dev/berth/api/upstream"
)

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "berth",
		Short: "A container orchestrator whose desired state is a Git repository",
		Long: `Berth runs containers as a Git repository says. You push a commit; Berth
validates it, shows what would change, switches the desired state to it in one
transaction, and makes the node match.`,
		Example: `  berth up                      run everything on this machine
  berth validate ./deploy       check a working tree, no cluster needed
  berth plan ./deploy           show what it would change
  berth status                  how the Sources are doing`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(upCommand(), serverCommand(), downCommand(), statusCommand(), validateCommand(), cueCommand(), planCommand(), simulateCommand(), sourceCommand(), syncCommand(), suspendCommand(), resumeCommand(), approveCommand(), historyCommand(), rollbackCommand(),
		imageCommand(),
		tokenCommand(), kubeconfigCommand(), backupCommand(), restoreCommand(), secretsCommand(), versionCommand(), compileWorkerCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  berth version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "berth %s (Kubernetes API %s)\n", version, upstream.Version)
			return err
		},
	}
}
