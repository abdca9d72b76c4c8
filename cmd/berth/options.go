package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"berth.dev/berth/engine/controllers"
)

// defaultDataDir is where a server keeps everything.
const defaultDataDir = "/var/lib/berth"

// options of berth up and berth server.
type options struct {
	// agent: the agent of this machine runs too.
	agent       bool
	store       storeOptions
	listen      string
	tlsNames    []string
	dataDir     string
	binDir      string
	nodeName    string
	nodeIP      string
	clusterCIDR string
	serviceCIDR string
	containerd  string
	nodeGrace   time.Duration
	allowLocal  bool
	allowFile   bool
	logLevel    string
}

func (o *options) register(f *pflag.FlagSet) {
	o.registerServer(f)
	f.StringVar(&o.binDir, "bin-dir", "", "where containerd, its shim and runc are (default: beside berth)")
	f.StringVar(&o.nodeName, "node-name", "", "name of this node (default: the host name)")
	f.StringVar(&o.nodeIP, "node-ip", "", "address of this node (default: that of the default route)")
	f.StringVar(&o.containerd, "containerd", "", "socket of a containerd to use (default: start one of our own)")
}

// registerServer adds the flags of the control plane.
func (o *options) registerServer(f *pflag.FlagSet) {
	o.store.register(f)
	f.StringVar(&o.listen, "listen", "0.0.0.0:7443", "address and port of the API, the page and the Git endpoint")
	f.StringVar(&o.dataDir, "data-dir", defaultDataDir, "where everything is kept")
	f.StringSliceVar(&o.tlsNames, "tls-san", nil, "more names and addresses for the server's certificate, such as that of a load balancer")
	f.StringVar(&o.clusterCIDR, "cluster-cidr", "10.42.0.0/16", "range of the pods' addresses; each node takes a /24")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.43.0.0/16", "range of the Services' addresses")
	f.DurationVar(&o.nodeGrace, "node-monitor-grace-period", controllers.DefaultNodeGrace, "how long a node's agent may be silent before the node is not ready")
	f.BoolVar(&o.allowLocal, "allow-local-sources", false, "let Sources name http, loopback and link-local addresses")
	f.BoolVar(&o.allowFile, "allow-file-sources", false, "let Sources name file:// URLs")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
}

// ranges are the networks of a cluster.
type ranges struct{ cluster, pods, services netip.Prefix }

func (o *options) ranges() (ranges, error) {
	cluster, err := netip.ParsePrefix(o.clusterCIDR)
	if err != nil || !cluster.Addr().Is4() || cluster.Bits() > 24 {
		return ranges{}, fmt.Errorf("--cluster-cidr %q is not an IPv4 range of /24 or larger, such as 10.42.0.0/16", o.clusterCIDR)
	}
	services, err := netip.ParsePrefix(o.serviceCIDR)
	if err != nil || !services.Addr().Is4() || services.Bits() > 24 {
		return ranges{}, fmt.Errorf("--service-cidr %q is not an IPv4 range of /24 or larger, such as 10.43.0.0/16", o.serviceCIDR)
	}
	if cluster.Overlaps(services) {
		return ranges{}, fmt.Errorf("--cluster-cidr %s and --service-cidr %s overlap; choose two that do not", cluster, services)
	}
	return ranges{cluster.Masked(), netip.PrefixFrom(cluster.Masked().Addr(), 24), services.Masked()}, nil
}

// complete fills what was not said.
func (o *options) complete() error {
	var err error
	if o.dataDir, err = filepath.Abs(o.dataDir); err != nil {
		return err
	}
	if err := o.store.complete(o.dataDir); err != nil {
		return err
	}
	if o.binDir == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w; say --bin-dir", err)
		}
		o.binDir = filepath.Dir(exe)
	}
	if o.nodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name: %w; say --node-name", err)
		}
		o.nodeName = strings.ToLower(name)
	}
	return nil
}
