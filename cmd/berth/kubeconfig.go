package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/access"
)

// kubeconfig is what of a kubeconfig file Berth reads and writes.
type kubeconfig struct {
	APIVersion     string          `json:"apiVersion"`
	Kind           string          `json:"kind"`
	CurrentContext string          `json:"current-context"`
	Clusters       []namedCluster  `json:"clusters"`
	Users          []namedUser     `json:"users"`
	Contexts       []namedContexts `json:"contexts"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CAData string `json:"certificate-authority-data,omitempty"`
		CAFile string `json:"certificate-authority,omitempty"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		Token string `json:"token,omitempty"`
	} `json:"user"`
}

type namedContexts struct {
	Name    string `json:"name"`
	Context struct {
		Cluster string `json:"cluster"`
		User    string `json:"user"`
	} `json:"context"`
}

func kubeconfigFile(dataDir string) string { return filepath.Join(dataDir, "admin.kubeconfig") }

// writeKubeconfig leaves the administrator's kubeconfig in the data directory.
func writeKubeconfig(dataDir, server string) (string, error) {
	ca, err := os.ReadFile(access.CAFile(dataDir))
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig: %w", err)
	}
	token, err := os.ReadFile(access.AdminTokenFile(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // an administrator who removed the token wants no such file
	}
	if err != nil {
		return "", fmt.Errorf("write the kubeconfig: %w", err)
	}
	c := kubeconfig{APIVersion: "v1", Kind: "Config", CurrentContext: "berth"}
	var cluster namedCluster
	cluster.Name, cluster.Cluster.Server = "berth", server
	cluster.Cluster.CAData = base64.StdEncoding.EncodeToString(ca)
	var user namedUser
	user.Name, user.User.Token = "admin", strings.TrimSpace(string(token))
	var use namedContexts
	use.Name, use.Context.Cluster, use.Context.User = "berth", "berth", "admin"
	c.Clusters, c.Users, c.Contexts = []namedCluster{cluster}, []namedUser{user}, []namedContexts{use}
	b, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	path := kubeconfigFile(dataDir)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", fmt.Errorf("write the kubeconfig: %w", err)
	}
	return path, nil
}

// connection is how a tool reaches a server.
type connection struct{ kubeconfig string }

func (c *connection) register(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "file that says where the server is (default: $KUBECONFIG, then "+kubeconfigFile(defaultDataDir)+")")
}

// remote is an open connection.
type remote struct {
	*client.HTTP
}

func (c *connection) open() (*remote, error) {
	path := c.kubeconfig
	if path == "" {
		path, _, _ = strings.Cut(os.Getenv("KUBECONFIG"), string(os.PathListSeparator))
	}
	if path == "" {
		path = kubeconfigFile(defaultDataDir)
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no kubeconfig at %s: start a server with berth up, or name its file with --kubeconfig", path)
	}
	if err != nil {
		return nil, err
	}
	server, ca, token, err := parseKubeconfig(b, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read %s: it holds no certificate authority", path)
	}
	up, err := upstream.New()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute,
	}
	return &remote{&client.HTTP{URL: server, Token: token, Client: &http.Client{Transport: transport}, Scheme: up.Scheme()}}, nil
}

func parseKubeconfig(b []byte, dir string) (server string, ca []byte, token string, err error) {
	var c kubeconfig
	if err := yaml.Unmarshal(b, &c); err != nil {
		return "", nil, "", err
	}
	for _, use := range c.Contexts {
		if use.Name != c.CurrentContext {
			continue
		}
		for _, cl := range c.Clusters {
			if cl.Name != use.Context.Cluster {
				continue
			}
			server = strings.TrimSuffix(cl.Cluster.Server, "/")
			if ca, err = base64.StdEncoding.DecodeString(cl.Cluster.CAData); err != nil {
				return "", nil, "", fmt.Errorf("certificate-authority-data: %w", err)
			}
			if file := cl.Cluster.CAFile; file != "" && len(ca) == 0 {
				if !filepath.IsAbs(file) {
					file = filepath.Join(dir, file)
				}
				if ca, err = os.ReadFile(file); err != nil {
					return "", nil, "", err
				}
			}
		}
		for _, u := range c.Users {
			if u.Name == use.Context.User {
				token = u.User.Token
			}
		}
	}
	if server == "" || token == "" {
		return "", nil, "", fmt.Errorf("the current context %q has no server with a token", c.CurrentContext)
	}
	return server, ca, token, nil
}
