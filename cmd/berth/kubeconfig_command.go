package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth.dev/berth/engine/access"
)

// kubeconfigOptions are the flags of berth kubeconfig.
type kubeconfigOptions struct {
	connection
	server, user, role, token, output string
	certificate                       bool
	life                              time.Duration
}

func kubeconfigCommand() *cobra.Command {
	var o kubeconfigOptions
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Write a kubeconfig, with which kubectl and berth reach the server",
		Long: `Write a kubeconfig: the server's address, its certificate authority, and a token.

Without flags it is the one that berth itself uses. With --user a new token of
that name is made on the server; berth token delete takes it back. With
--certificate it is a client certificate instead, which ends by itself and
cannot be taken back.`,
		Example: `  berth kubeconfig > ~/.kube/config
  berth kubeconfig --user ann --role viewer -o ann.kubeconfig
  berth kubeconfig --user ann --role admin --certificate --life 8h -o ann.kubeconfig
  berth kubeconfig --server https://berth.example.org:7443 -o admin.kubeconfig
  berth kubeconfig --user ci --token - < ci.token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	cmd.Flags().StringVar(&o.server, "server", "", "address of the server to write (default: the one that berth uses)")
	cmd.Flags().StringVar(&o.user, "user", "", "name of the user; a token of that name is made unless --token is given")
	cmd.Flags().StringVar(&o.role, "role", string(access.Viewer), "role of the token that is made: admin, viewer or node")
	cmd.Flags().StringVar(&o.token, "token", "", "token to write instead of a new one; - reads it from the standard input")
	cmd.Flags().BoolVar(&o.certificate, "certificate", false, "make a client certificate for --user instead of a token")
	cmd.Flags().DurationVar(&o.life, "life", 30*24*time.Hour, "how long the certificate lasts, 2160h at most")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write, for its owner alone (default: the standard output)")
	return cmd
}

func (o *kubeconfigOptions) run(ctx context.Context, in io.Reader, out io.Writer) error {
	from, err := o.read()
	if err != nil {
		return err
	}
	if o.server != "" {
		from.server = strings.TrimSuffix(o.server, "/")
	}
	if err := o.credentials(ctx, from, in); err != nil {
		return err
	}
	content, err := from.kubeconfig()
	if err != nil {
		return err
	}
	if o.output == "" {
		_, err := out.Write(content)
		return err
	}
	if err := os.WriteFile(o.output, content, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return os.Chmod(o.output, 0o600) // whatever it was before
}

// credentials puts into c those that the flags ask for.
func (o *kubeconfigOptions) credentials(ctx context.Context, c *credentials, in io.Reader) error {
	switch {
	case o.certificate && (o.user == "" || o.token != ""):
		return errors.New("--certificate needs --user, and no --token")
	case o.certificate:
		r, err := o.open()
		if err != nil {
			return err
		}
		cert, key, err := r.createCertificate(ctx, o.user, o.role, o.life)
		*c = credentials{server: c.server, ca: c.ca, user: o.user, cert: cert, key: key}
		return err
	case o.token == "-":
		b, err := io.ReadAll(io.LimitReader(in, 1<<16))
		if err != nil {
			return fmt.Errorf("read the token: %w", err)
		}
		if o.token = strings.TrimSpace(string(b)); o.token == "" {
			return errors.New("--token -: there is no token on the standard input")
		}
	case o.token == "" && o.user == "":
		return nil
	case o.token == "":
		r, err := o.open()
		if err != nil {
			return err
		}
		if o.token, err = r.createToken(ctx, o.user, o.role); err != nil {
			return err
		}
	}
	*c = credentials{server: c.server, ca: c.ca, user: o.user, token: o.token}
	return nil
}
