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
	"k8s.io/utils/clock"

	"berth.dev/berth/api/upstream"
	"berth.dev/berth/engine/access"
	"berth.dev/berth/engine/apiserver"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/recovery"
	"berth.dev/berth/engine/resources"
	"berth.dev/berth/engine/shared"
	"berth.dev/berth/engine/store"
	"berth.dev/berth/engine/sync"
	"berth.dev/berth/engine/web"
	"berth.dev/berth/nodeagent"
	"berth.dev/berth/sources/forge"
	"berth.dev/berth/sources/git"
	"berth.dev/berth/sources/receive"
)

// shutdown is how long open requests may take to end.
const shutdown = 2 * time.Second

// server is the control plane and, with berth up, the agent of one machine.
type server struct {
	options     options
	log         *slog.Logger
	upstream    *upstream.Upstream
	ranges      ranges
	store       *running
	bolt        *store.Bolt // the store, or nil
	etcd        *store.Etcd // the store, or nil
	sealed      *store.Sealed
	files       *shared.Files // nil without etcd
	storage     *storage
	keeper      *recovery.Keeper // nil with etcd
	views       *live.Cluster
	res         *resources.Resources
	syncOptions sync.Options
	loops       *loops       // those of a server that has the store for itself, or nil
	leadership  *leadership  // nil without etcd
	engine      *sync.Engine // to check what would change
	agent       *nodeagent.Agent
	account     *access.AccountKey // signs the tokens of service accounts
	users       *access.Users
	handler     http.Handler
	hooks       *forge.Hooks
	tls         *tls.Config
	ca          []byte // the authority's certificate, as PEM
	listener    net.Listener
	advertised  netip.AddrPort // where pods and other machines reach the listener
}

// newServer puts the parts together. It starts none of them but the store, and
// takes the port.
func newServer(ctx context.Context, o options, log *slog.Logger) (s *server, err error) {
	s = &server{options: o, log: log, views: live.New()}
	if s.ranges, err = o.ranges(); err != nil {
		return nil, err
	}
	nodeIP, err := nodeAddress(o.nodeIP)
	if err != nil {
		return nil, err
	}
	if s.upstream, err = upstream.New(); err != nil {
		return nil, err
	}
	// The port before the store: who finds it taken has changed nothing.
	if s.listener, err = listen(o.listen); err != nil {
		return nil, err
	}
	s.advertised = advertised(s.listener.Addr(), nodeIP)
	if err := s.assemble(ctx, nodeIP); err != nil {
		return nil, s.abandon(err)
	}
	return s, nil
}

// abandon gives back what a server that will not run has taken.
func (s *server) abandon(err error) error {
	s.listener.Close()
	if s.store != nil {
		err = errors.Join(err, s.store.close())
	}
	return err
}

func (s *server) assemble(ctx context.Context, nodeIP netip.Addr) (err error) {
	o, now := s.options, clock.RealClock{}
	if o.store.shared() {
		err = s.openEtcd(ctx)
	} else {
		err = s.openFile(ctx)
	}
	if err != nil {
		return err
	}
	s.res = s.resources(s.sealed)
	names := append(serverNames(o.nodeName, nodeIP), inClusterNames(s.ranges.services)...)
	names = append(names, o.tlsNames...)
	if at, ok := s.listener.Addr().(*net.TCPAddr); ok && !at.IP.IsUnspecified() {
		names = append(names, at.IP.String())
	}
	if s.tls, err = access.ServerTLS(o.dataDir, names, now.Now); err != nil {
		return err
	}
	if s.ca, err = os.ReadFile(access.CAFile(o.dataDir)); err != nil {
		return err
	}
	tokens, err := access.OpenTokens(o.dataDir)
	if err != nil {
		return err
	}
	s.users = &access.Users{Tokens: tokens, Accounts: &access.Accounts{Key: s.account, Objects: s.res, Now: now.Now}}
	compiler, err := newCompiler(s.log)
	if err != nil {
		return fmt.Errorf("load the schemas: %w", err)
	}
	gate := &pushGate{views: s.views, resources: s.res, shared: s.etcd != nil, log: s.log}
	repositories := receive.New(receive.Options{Dir: filepath.Join(o.dataDir, "git"), Gate: gate, User: userName, AllowForce: administrators, Log: s.log})
	fetcher := &revisions{remote: git.New(git.Options{
		Dir: filepath.Join(o.dataDir, "clones"), Log: s.log, AllowLocal: o.allowLocal, AllowFile: o.allowFile, Credentials: remoteCredentials(s.res, &forge.Apps{HTTP: git.HTTPClient(o.allowLocal), Clock: clock.RealClock{}}),
	})}
	if s.etcd == nil {
		fetcher.builtIn = repositories
	}
	s.syncOptions = sync.Options{Resources: s.res, Live: s.views, Clock: now, Log: s.log, Fetcher: fetcher, Compiler: &manifests{compiler: compiler}}
	if s.etcd == nil {
		s.keeper = recovery.New(recovery.Options{Resources: s.res, Store: s.sealed, Path: s.opener().recoveryPath(), Clock: now, Log: s.log})
		s.loops = s.newLoops(s.res, s.views)
		s.engine = s.loops.engine
	} else {
		s.leadership = newLeadership(s.etcd, s.res)
		s.engine = sync.NewChecker(s.syncOptions)
	}
	gate.engine = s.engine
	s.storage = &storage{sealed: s.sealed, bolt: s.bolt, etcd: s.etcd, engine: s.engine, keyFile: o.store.keyFile, log: s.log}
	if o.agent {
		if err := s.newAgent(ctx, nodeIP); err != nil {
			return err
		}
	}
	s.hooks = newHooks(s.res, now, s.log)
	s.handler = s.routes(expectPush(compiler, repositories))
	return nil
}

// openFile opens and starts the store that this server has for itself.
func (s *server) openFile(ctx context.Context) (err error) {
	if s.account, err = access.OpenAccountKey(s.options.dataDir); err != nil {
		return err
	}
	opener := s.opener()
	if s.bolt, err = opener.open(ctx); err != nil {
		return err
	}
	s.bolt.Log = s.log
	s.store = startStore(s.bolt)
	s.sealed, err = opener.seal(ctx, s.bolt)
	return err
}

func (s *server) opener() *opener {
	return &opener{dataDir: s.options.dataDir, keyFile: s.options.store.keyFile, node: s.options.nodeName, log: s.log, resources: s.resources}
}

// resources are the objects in a store.
func (s *server) resources(over store.Store) *resources.Resources {
	return resources.New(resources.Options{Store: over, Upstream: s.upstream, Clock: clock.RealClock{}, ServiceCIDR: s.ranges.services, Signer: s.account})
}

func (s *server) newAgent(ctx context.Context, nodeIP netip.Addr) (err error) {
	o, pods := s.options, s.ranges.pods
	if s.etcd != nil {
		if pods, err = podRange(ctx, s.sealed, s.res, s.ranges.cluster, o.nodeName); err != nil {
			return err
		}
	}
	s.agent, err = nodeagent.New(nodeagent.Options{
		Client: s.res, NodeName: o.nodeName, NodeIP: nodeIP, DataDir: o.dataDir, BinDir: o.binDir,
		ClusterCIDR: s.ranges.cluster, PodCIDR: pods, ServiceCIDR: s.ranges.services,
		ContainerdAddress: o.containerd, Version: version, Log: s.log, Clock: clock.RealClock{},
	})
	return err
}

// routes puts everything that listens on the one port behind one check of who asks.
func (s *server) routes(repositories http.Handler) http.Handler {
	options := apiserver.Options{
		Resources: s.res, Upstream: s.upstream, Logs: s.agent, Streams: &sessions{s.agent}, Reach: s.reach,
		Users: s.users, AccountKeys: s.account.PublicKeys(), Version: version, Log: s.log,
	}
	if s.agent != nil {
		options.Usage = s.agent
	}
	if s.leadership != nil {
		options.Cluster = s.leadership
	}
	api := apiserver.New(options)
	page := anyAge(web.New(web.Options{Live: s.views, Resources: s.res, Tokens: s.users.Tokens, Version: version, Log: s.log}))
	extra := &endpoints{engine: s.engine, views: s.views, agent: s.agent, log: s.log}
	mux := http.NewServeMux()
	mux.Handle("POST /berth/v1/hooks/{source}", s.hooks) // asks for a signature instead of a user
	mux.Handle("/git/", requireUser(repositories, access.Admin))
	mux.Handle("POST /berth/v1/plan", requireUser(http.HandlerFunc(extra.plan), access.Admin))
	mux.Handle("POST /berth/v1/images", requireUser(http.HandlerFunc(extra.images), access.Admin))
	mux.Handle("GET /berth/v1/backup", requireUser(http.HandlerFunc(s.storage.backup), access.Admin))
	mux.Handle("POST /berth/v1/restore", requireUser(http.HandlerFunc(s.storage.restore), access.Admin))
	mux.Handle("POST /berth/v1/secrets/rotate-key", requireUser(http.HandlerFunc(s.storage.rotateKey), access.Admin))
	(&tokenEndpoints{tokens: s.users.Tokens, dataDir: s.options.dataDir, log: s.log}).register(mux)
	for _, path := range []string{"/.well-known/openid-configuration", "/openid/v1/jwks", "/api", "/api/", "/apis", "/apis/", "/version", "/healthz", "/livez", "/readyz", "/openapi/", "/metrics"} {
		mux.Handle(path, api)
	}
	mux.Handle("/", peopleOnly(page))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, ok := s.users.Request(r); ok {
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
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() {
		<-s.store.ended
		end() // without a store nothing goes on
	}()
	err := s.runParts(ctx, ready)
	// The store outlives the others, so that their last writes are kept.
	return errors.Join(err, s.store.close())
}

func (s *server) runParts(ctx context.Context, ready func()) error {
	if err := s.storage.sealAll(ctx); err != nil {
		return err
	}
	if err := s.res.Bootstrap(ctx); err != nil {
		return err
	}
	if err := s.forgetStopped(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.views.Run(ctx, s.res) })
	if s.leadership != nil {
		g.Go(func() error { return s.files.Run(ctx) })
		g.Go(func() error { return s.leadership.run(ctx, s) })
	} else {
		g.Go(func() error { return s.keeper.Run(ctx) })
		g.Go(func() error { return s.loops.run(ctx) })
	}
	if s.agent != nil {
		g.Go(func() error { return s.agent.Run(ctx) })
	}
	g.Go(func() error { return s.hooks.Run(ctx) })
	g.Go(func() error { return s.serve(ctx) })
	ready()
	return g.Wait()
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

// administrators are all who can push, so each may rewrite history
// (git push --force-with-lease). The push says so, and its plan what that means.
func administrators(string, string, string) bool { return true }
