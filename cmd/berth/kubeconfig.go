package main

import (
	"cmp"
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
		Token    string `json:"token,omitempty"`
		CertData string `json:"client-certificate-data,omitempty"`
		CertFile string `json:"client-certificate,omitempty"`
		KeyData  string `json:"client-key-data,omitempty"`
		KeyFile  string `json:"client-key,omitempty"`
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

// credentials are what a kubeconfig says of one server and one user: a token, or
// a client certificate.
type credentials struct {
	server string
	ca     []byte
	user   string
	token  string
	// cert and key are PEM.
	cert, key []byte
}

// kubeconfig is the file with these credentials.
func (c *credentials) kubeconfig() ([]byte, error) {
	var cluster namedCluster
	cluster.Name, cluster.Cluster.Server = "berth", c.server
	cluster.Cluster.CAData = base64.StdEncoding.EncodeToString(c.ca)
	var user namedUser
	user.Name, user.User.Token = cmp.Or(c.user, "berth"), c.token
	user.User.CertData, user.User.KeyData = base64.StdEncoding.EncodeToString(c.cert), base64.StdEncoding.EncodeToString(c.key)
	var use namedContexts
	use.Name, use.Context.Cluster, use.Context.User = "berth", "berth", user.Name
	return yaml.Marshal(kubeconfig{
		APIVersion: "v1", Kind: "Config", CurrentContext: "berth",
		Clusters: []namedCluster{cluster}, Users: []namedUser{user}, Contexts: []namedContexts{use},
	})
}

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
	c := &credentials{server: server, ca: ca, user: "admin", token: strings.TrimSpace(string(token))}
	b, err := c.kubeconfig()
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

// path of the kubeconfig that is used.
func (c *connection) path() string {
	first, _, _ := strings.Cut(os.Getenv("KUBECONFIG"), string(os.PathListSeparator))
	return cmp.Or(c.kubeconfig, first, kubeconfigFile(defaultDataDir))
}

// read reads the kubeconfig that is used.
func (c *connection) read() (*credentials, error) {
	path := c.path()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no kubeconfig at %s: start a server with berth up, or name its file with --kubeconfig", path)
	}
	if err != nil {
		return nil, err
	}
	found, err := parseKubeconfig(b, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return found, nil
}

func (c *connection) open() (*remote, error) {
	found, err := c.read()
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(found.ca) {
		return nil, fmt.Errorf("read %s: it holds no certificate authority", c.path())
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if len(found.cert) > 0 {
		pair, err := tls.X509KeyPair(found.cert, found.key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate in %s: %w", c.path(), err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	up, err := upstream.New()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 5 * time.Minute}
	return &remote{&client.HTTP{URL: found.server, Token: found.token, Client: &http.Client{Transport: transport}, Scheme: up.Scheme()}}, nil
}

// parseKubeconfig finds the credentials of the current context. Files that it
// names are looked for from dir.
func parseKubeconfig(b []byte, dir string) (*credentials, error) {
	var c kubeconfig
	if err := yaml.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	found := &credentials{}
	for _, use := range c.Contexts {
		if use.Name != c.CurrentContext {
			continue
		}
		if err := c.fill(found, use, dir); err != nil {
			return nil, err
		}
	}
	if found.server == "" || (found.token == "" && len(found.cert) == 0) {
		return nil, fmt.Errorf("the current context %q has no server with a token", c.CurrentContext)
	}
	return found, nil
}

func (c *kubeconfig) fill(found *credentials, use namedContexts, dir string) error {
	var err error
	for _, cl := range c.Clusters {
		if cl.Name != use.Context.Cluster {
			continue
		}
		found.server = strings.TrimSuffix(cl.Cluster.Server, "/")
		if found.ca, err = dataOrFile("certificate-authority", cl.Cluster.CAData, cl.Cluster.CAFile, dir); err != nil {
			return err
		}
	}
	for _, u := range c.Users {
		if u.Name != use.Context.User {
			continue
		}
		found.user, found.token = u.Name, u.User.Token
		if found.cert, err = dataOrFile("client-certificate", u.User.CertData, u.User.CertFile, dir); err != nil {
			return err
		}
		if found.key, err = dataOrFile("client-key", u.User.KeyData, u.User.KeyFile, dir); err != nil {
			return err
		}
	}
	return nil
}

// dataOrFile is what stands in a field, or in the file that another one names.
func dataOrFile(field, data, file, dir string) ([]byte, error) {
	if data == "" && file != "" {
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		return os.ReadFile(file)
	}
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, fmt.Errorf("%s-data: %w", field, err)
	}
	return b, nil
}
