package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/cue"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/controllers"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/recovery"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/engine/web"
	"berth.dev/berth/nodeagent"
	"berth.dev/berth/sources/git"
	"berth.dev/berth/sources/receive"
)

// shutdown is how long open requests may take to end.
const shutdown = 2 * time.Second

// server is the control plane and the agent of one machine.
type server struct {
	options  options
	log      *slog.Logger
	store    *store.Bolt
	sealed   *store.Sealed
	storage  *storage
	keeper   *recovery.Keeper
	views    *live.Cluster
	res      *resources.Resources
	control  *controllers.Controllers
	engine   *sync.Engine
	agent    *nodeagent.Agent
	handler  http.Handler
	tls      *tls.Config
	listener net.Listener
}

// newServer puts the parts together. It starts none of them, but takes the port.
func newServer(o options, log *slog.Logger) (s *server, err error) {
	s = &server{options: o, log: log, views: live.New()}
	ranges, err := o.ranges()
	if err != nil {
		return nil, err
	}
	nodeIP, err := nodeAddress(o.nodeIP)
	if err != nil {
		return nil, err
	}
	up, err := upstream.New()
	if err != nil {
		return nil, err
	}
	// The port before the file: who finds it taken has changed nothing.
	if s.listener, err = listen(o.listen); err != nil {
		return nil, err
	}
	listener := s.listener // what is returned with an error is no server
	defer func() {
		if err != nil {
			listener.Close()
		}
	}()
	now := clock.RealClock{}
	key, err := access.OpenAccountKey(o.dataDir)
	if err != nil {
		return nil, err
	}
	opener := &opener{dataDir: o.dataDir, node: o.nodeName, log: log, resources: func(over store.Store) *resources.Resources {
		return resources.New(resources.Options{Store: over, Upstream: up, Clock: now, ServiceCIDR: ranges.services, Signer: key})
	}}
	if s.store, err = opener.open(context.Background()); err != nil {
		return nil, err
	}
	s.store.Log = log
	if s.sealed, err = opener.seal(context.Background(), s.store); err != nil {
		return nil, err
	}
	s.res = opener.resources(s.sealed)
	s.keeper = recovery.New(recovery.Options{Resources: s.res, Store: s.sealed, Path: opener.recoveryPath(), Clock: now, Log: log})
	compiler, err := cue.New()
	if err != nil {
		return nil, fmt.Errorf("load the schemas: %w", err)
	}
	gate := &pushGate{views: s.views, resources: s.res, log: log}
	repositories := receive.New(receive.Options{Dir: filepath.Join(o.dataDir, "git"), Gate: gate, User: userName, Log: log})
	fetcher := git.New(git.Options{Dir: filepath.Join(o.dataDir, "clones"), Log: log, AllowLocal: o.allowLocal, AllowFile: o.allowFile})
	names := append(serverNames(o.nodeName, nodeIP), inClusterNames(ranges.services)...)
	if s.tls, err = access.ServerTLS(o.dataDir, names, now.Now); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(access.CAFile(o.dataDir))
	if err != nil {
		return nil, err
	}
	s.control = controllers.New(controllers.Options{
		Resources: s.res, Live: s.views, Clock: now, Log: log,
		CA: ca, ServiceCIDR: ranges.services, Servers: func() []netip.AddrPort { return advertised(listener.Addr(), nodeIP) },
	})
	s.engine = sync.New(sync.Options{
		Resources: s.res, Live: s.views, Clock: now, Log: log,
		Fetcher: &revisions{builtIn: repositories, remote: fetcher}, Compiler: &manifests{compiler},
	})
	gate.engine = s.engine
	s.storage = &storage{sealed: s.sealed, bolt: s.store, engine: s.engine, keyFile: keyPath(o.dataDir), log: log}
	s.agent, err = nodeagent.New(nodeagent.Options{
		Client: s.res, NodeName: o.nodeName, NodeIP: nodeIP, DataDir: o.dataDir, BinDir: o.binDir,
		ClusterCIDR: ranges.cluster, PodCIDR: ranges.pods, ServiceCIDR: ranges.services,
		ContainerdAddress: o.containerd, Version: version, Log: log, Clock: now,
	})
	if err != nil {
		return nil, err
	}
	tokens, err := access.OpenTokens(o.dataDir)
	if err != nil {
		return nil, err
	}
	users := &access.Users{Tokens: tokens, Accounts: &access.Accounts{Key: key, Objects: s.res, Now: now.Now}}
	s.handler = s.routes(up, users, key, repositories)
	return s, nil
}

// routes puts everything that listens on the one port behind one check of who asks.
func (s *server) routes(up *upstream.Upstream, users *access.Users, key *access.AccountKey, repositories http.Handler) http.Handler {
	api := apiserver.New(apiserver.Options{
		Resources: s.res, Upstream: up, Logs: s.agent, Streams: &sessions{s.agent}, Usage: s.agent, Users: users, AccountKeys: key.PublicKeys(), Version: version, Log: s.log,
	})
	page := web.New(web.Options{Live: s.views, Resources: s.res, Tokens: users.Tokens, Version: version, Log: s.log})
	extra := &endpoints{engine: s.engine, views: s.views, agent: s.agent, log: s.log}
	mux := http.NewServeMux()
	mux.Handle("/git/", requireUser(repositories, access.Admin))
	mux.Handle("POST /berth/v1/plan", requireUser(http.HandlerFunc(extra.plan), access.Admin))
	mux.Handle("POST /berth/v1/images", requireUser(http.HandlerFunc(extra.images), access.Admin))
	mux.Handle("GET /berth/v1/backup", requireUser(http.HandlerFunc(s.storage.backup), access.Admin))
	mux.Handle("POST /berth/v1/restore", requireUser(http.HandlerFunc(s.storage.restore), access.Admin))
	mux.Handle("POST /berth/v1/secrets/rotate-key", requireUser(http.HandlerFunc(s.storage.rotateKey), access.Admin))
	(&tokenEndpoints{tokens: users.Tokens, dataDir: s.options.dataDir, log: s.log}).register(mux)
	for _, path := range []string{"/.well-known/openid-configuration", "/openid/v1/jwks", "/api", "/api/", "/apis", "/apis/", "/version", "/healthz", "/livez", "/readyz", "/openapi/", "/metrics"} {
		mux.Handle(path, api)
	}
	mux.Handle("/", peopleOnly(page))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, ok := users.Request(r); ok {
			r = r.WithContext(access.With(r.Context(), user))
		}
		mux.ServeHTTP(w, r)
	})
}

// requireUser asks for credentials as git and curl understand it.
func requireUser(h http.Handler, role access.Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := access.From(r.Context())
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="berth"`)
			http.Error(w, "credentials are missing or not valid: give the token as the password", http.StatusUnauthorized)
			return
		}
		if user.Role != role {
			http.Error(w, fmt.Sprintf("user %s has the role %s; %s is needed", user.Name, cmp.Or(user.Role, "none"), role), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func userName(r *http.Request) string {
	u, _ := access.From(r.Context())
	return u.Name
}

// run runs all parts until the context ends or one of them fails.
func (s *server) run(ctx context.Context, ready func()) error {
	// The store outlives the others, so that their last writes are kept.
	storeCtx, closeStore := context.WithCancel(context.WithoutCancel(ctx))
	stored := make(chan error, 1)
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() {
		defer end() // without a store nothing goes on
		stored <- s.store.Run(storeCtx)
	}()
	err := s.runParts(ctx, ready)
	closeStore()
	return errors.Join(err, <-stored)
}

func (s *server) runParts(ctx context.Context, ready func()) error {
	if err := s.storage.sealAll(ctx); err != nil {
		return err
	}
	if err := s.bootstrap(ctx); err != nil {
		return err
	}
	if err := s.forgetStopped(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.views.Run(ctx, s.res) })
	g.Go(func() error { return s.keeper.Run(ctx) })
	g.Go(func() error { return s.control.Run(ctx) })
	g.Go(func() error { return s.engine.Run(ctx) })
	g.Go(func() error { return s.agent.Run(ctx) })
	g.Go(func() error { return s.serve(ctx) })
	ready()
	return g.Wait()
}

// bootstrap makes the Namespaces and the classes of priority that every cluster has.
func (s *server) bootstrap(ctx context.Context) error {
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		err := s.res.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create namespace %s: %w", name, err)
		}
	}
	for name, value := range map[string]int32{"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000} {
		err := s.res.Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create priority class %s: %w", name, err)
		}
	}
	return nil
}

func (s *server) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(tls.NewListener(s.listener, s.tls)) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	if srv.Shutdown(end) != nil {
		srv.Close()
	}
	<-done
	return nil
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: %w; another program has the port: stop it, or choose another one with --listen", address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("--listen %q: %w; say an address of this machine and a port, such as 0.0.0.0:7443", address, err)
	}
	return l, nil
}

// nodeAddress is the address by which others reach this node: the one that a
// packet to the outside would leave from, or the first that is not loopback.
func nodeAddress(said string) (netip.Addr, error) {
	if said != "" {
		a, err := netip.ParseAddr(said)
		if err != nil || !a.Is4() {
			return netip.Addr{}, fmt.Errorf("--node-ip %q is not an IPv4 address", said)
		}
		return a, nil
	}
	// No packet is sent: this only asks the routing table (192.0.2.0/24 is for
	// documentation, RFC 5737).
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(), nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the address of this node: %w; say --node-ip", err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			addr, _ := netip.AddrFromSlice(n.IP.To4())
			return addr, nil
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

func serverNames(node string, ip netip.Addr) []string {
	names := []string{"localhost", "127.0.0.1", "::1", node, ip.String()}
	if host, err := os.Hostname(); err == nil && host != node {
		names = append(names, host)
	}
	return names
}
