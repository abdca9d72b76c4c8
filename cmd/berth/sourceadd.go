package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/v1alpha1"
)

func sourceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "source", Short: "Add and remove the repositories that are deployed",
		Example: `  berth source add shop https://git.example.org/team/shop.git --path deploy
  berth source remove shop`,
	}
	cmd.AddCommand(sourceAddCommand(), sourceRemoveCommand())
	return cmd
}

// newSource is what the flags of berth source add say.
type newSource struct {
	spec     v1alpha1.SourceSpec
	interval time.Duration
	rollback bool
	prune    bool
	// Files with what opens the remote.
	username                                            string
	passwordFile, tokenFile, sshKey, knownHosts, caFile string
	// decryption is the Secret that opens encrypted files: [NAMESPACE/]NAME.
	decryption string
}

func sourceAddCommand() *cobra.Command {
	var c connection
	n := newSource{}
	cmd := &cobra.Command{
		Use: "add NAME [URL]", Short: "Deploy a repository; without a URL, one that is pushed to this server",
		Long: `Deploy a repository: of another server, or, without a URL, the one of the built-in
endpoint, /git/NAME.git, to which you push.

What opens a private remote is read from files, and put into the Secret NAME-git
in the target namespace. The Secret that opens encrypted files is only named.`,
		Example: `  berth source add shop https://git.example.org/team/shop.git --path deploy
  berth source add shop https://git.example.org/team/shop.git --token-file token --rollback
  berth source add shop git@git.example.org:team/shop.git --ssh-key deploy_key --known-hosts known_hosts
  berth source add tools --target-namespace tools
  berth source add shop --decryption-secret keys/shop-age
  berth status shop --watch`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, secret, err := n.objects(args)
			if err != nil {
				return err
			}
			r, err := c.open()
			if err != nil {
				return err
			}
			return addSource(cmd.Context(), r, src, secret, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.spec.Path, "path", "", "folder of the repository (default: its root)")
	f.StringVar(&n.spec.Ref.Branch, "branch", "", "branch to follow (default: main)")
	f.StringVar(&n.spec.Ref.Tag, "tag", "", "tag to deploy")
	f.StringVar(&n.spec.Ref.Semver, "semver", "", `range of versions among the tags, such as "~1.4"`)
	f.StringVar(&n.spec.Ref.Commit, "commit", "", "commit to deploy")
	f.DurationVar(&n.interval, "interval", 0, "time between two polls (default: 30s)")
	f.StringVar(&n.spec.TargetNamespace, "target-namespace", "", "for objects without a namespace (default: default)")
	f.StringSliceVar(&n.spec.Namespaces, "namespaces", nil, "namespaces that it may touch (default: all)")
	f.BoolVar(&n.prune, "prune", true, "delete what a commit no longer holds")
	f.BoolVar(&n.rollback, "rollback", false, "go back by itself when a commit does not become healthy")
	f.StringVar(&n.username, "username", "", "user name for the remote (with --password-file)")
	f.StringVar(&n.passwordFile, "password-file", "", "file with the password for the remote")
	f.StringVar(&n.tokenFile, "token-file", "", "file with a token for the remote")
	f.StringVar(&n.sshKey, "ssh-key", "", "file with the private key for an ssh remote (with --known-hosts)")
	f.StringVar(&n.knownHosts, "known-hosts", "", "known_hosts file with the key of the ssh host")
	f.StringVar(&n.caFile, "ca-file", "", "file with the certificates that the remote is trusted by")
	f.StringVar(&n.decryption, "decryption-secret", "", "Secret with the age keys that open encrypted files: NAME in the target namespace, or NAMESPACE/NAME")
	c.register(f)
	return cmd
}

// objects are the Source and, when files for it are given, its Secret.
func (n *newSource) objects(args []string) (*v1alpha1.Source, *corev1.Secret, error) {
	src := &v1alpha1.Source{ObjectMeta: metav1.ObjectMeta{Name: args[0]}, Spec: n.spec}
	if len(args) > 1 {
		src.Spec.URL = args[1]
	}
	if n.interval > 0 {
		src.Spec.Interval = &metav1.Duration{Duration: n.interval}
	}
	if !n.prune {
		src.Spec.Prune = &n.prune
	}
	if n.rollback {
		src.Spec.Rollback = v1alpha1.RollbackAutomatic
	}
	var err error
	if src.Spec.Decryption, err = n.decryptionSecret(); err != nil {
		return nil, nil, err
	}
	data, err := n.credentials()
	if err != nil || len(data) == 0 {
		return src, nil, err
	}
	if src.Spec.URL == "" {
		return nil, nil, errors.New("credentials are for a remote: give its URL, too")
	}
	namespace := src.Spec.TargetNamespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: src.Name + "-git"}, Data: data}
	src.Spec.Credentials = &v1alpha1.Credentials{SecretName: secret.Name, SecretNamespace: namespace}
	return src, secret, nil
}

// decryptionSecret is the Secret that opens encrypted files; nil where none is named.
func (n *newSource) decryptionSecret() (*v1alpha1.Decryption, error) {
	if n.decryption == "" {
		return nil, nil
	}
	namespace, name, both := strings.Cut(n.decryption, "/")
	if !both {
		return &v1alpha1.Decryption{SecretName: n.decryption}, nil
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return nil, fmt.Errorf("--decryption-secret %q names no Secret; write NAME, or NAMESPACE/NAME such as keys/shop-age", n.decryption)
	}
	return &v1alpha1.Decryption{SecretName: name, SecretNamespace: namespace}, nil
}

// credentials reads what opens the remote.
func (n *newSource) credentials() (map[string][]byte, error) {
	switch {
	case (n.username == "") != (n.passwordFile == ""):
		return nil, errors.New("--username and --password-file belong together")
	case (n.sshKey == "") != (n.knownHosts == ""):
		return nil, errors.New("--ssh-key and --known-hosts belong together: a host that is not known is not talked to; ssh-keyscan HOST > known_hosts, and compare the key with what the host's owner says")
	}
	out := map[string][]byte{}
	if n.username != "" {
		out["username"] = []byte(n.username)
	}
	for key, file := range map[string]string{
		"password": n.passwordFile, "token": n.tokenFile, "ssh-privatekey": n.sshKey, "known_hosts": n.knownHosts, "ca.crt": n.caFile,
	} {
		if file == "" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if key == "password" || key == "token" {
			data = []byte(strings.TrimRight(string(data), "\r\n"))
		}
		out[key] = data
	}
	return out, nil
}

// addSource makes the Secret first: a Source without it would fail once.
func addSource(ctx context.Context, c client.Client, src *v1alpha1.Source, secret *corev1.Secret, out io.Writer) error {
	var there v1alpha1.Source
	if err := c.Get(ctx, client.Key(src), &there); err == nil {
		return fmt.Errorf("there is a Source %s already; look at it with: berth status %s, or change it with: kubectl edit source %s", src.Name, src.Name, src.Name)
	} else if !apierrors.IsNotFound(err) {
		return err
	}
	if secret != nil {
		if err := c.Create(ctx, secret); err != nil {
			return fmt.Errorf("make the Secret %s/%s with the credentials: %w", secret.Namespace, secret.Name, err)
		}
	}
	if err := c.Create(ctx, src); err != nil {
		if secret != nil {
			err = errors.Join(err, c.Delete(ctx, secret, client.DeleteOptions{}))
		}
		return err
	}
	fmt.Fprintf(out, "Source %s is added; follow it with: berth status %s --watch\n", src.Name, src.Name)
	if src.Spec.URL == "" {
		fmt.Fprintf(out, "push to it: git push https://admin:TOKEN@HOST:7443/git/%s.git %s\n", src.Name, pushed(src.Spec.Ref))
	}
	return nil
}

// pushed is what git push takes for what a Source of the built-in endpoint deploys.
func pushed(ref v1alpha1.Ref) string {
	switch {
	case ref.Tag != "":
		return "refs/tags/" + ref.Tag
	case ref.Commit != "":
		return ref.Commit + ":refs/heads/main"
	}
	return "HEAD:" + cmp.Or(ref.Branch, "main")
}

func sourceRemoveCommand() *cobra.Command {
	return onSource("remove", "Deploy a repository no longer; what it deployed goes on running",
		`Deploy a repository no longer. What it deployed goes on running, and can be changed
with kubectl, or taken over by another Source that holds the same objects. To
delete it all, push a commit without any object and approve it, before you
remove the Source.`,
		`  berth source remove shop
  kubectl get all -A -l berth.dev/source=shop     what it left behind`,
		func(ctx context.Context, r *remote, s *v1alpha1.Source, out io.Writer) error {
			if err := r.Delete(ctx, s, client.DeleteOptions{}); err != nil {
				return err
			}
			fmt.Fprintf(out, "Source %s is removed; what it deployed goes on: kubectl get all -A -l %s=%s\n", s.Name, v1alpha1.LabelSource, s.Name)
			return nil
		})
}
