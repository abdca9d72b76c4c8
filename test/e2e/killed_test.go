package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var kills = flag.Int("kills", 25, "how often TestServerKilledUnderLoad ends the server")

// atoms is how many objects each push changes at once.
const atoms = 30

// TestServerKilledUnderLoad ends the server at random moments while programs
// write over HTTP and somebody pushes: what was acknowledged is there, and a
// commit is applied whole or not at all.
func TestServerKilledUnderLoad(t *testing.T) {
	m := bootServer(t)
	l := &load{m: m, set: m.clientset(), acked: map[string]int{}}
	repo := l.repository()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	for i := range 4 {
		work.Go(func() { l.count(ctx, fmt.Sprintf("counter-%d", i)) })
		work.Go(func() { l.create(ctx, fmt.Sprintf("made-%d", i)) })
	}
	work.Go(func() { l.push(ctx, repo) })
	for range *kills {
		time.Sleep(50*time.Millisecond + rand.N(600*time.Millisecond)) //nolint:gosec
		m.stop(syscall.SIGKILL)
		m.up()
		l.whole()
	}
	cancel()
	work.Wait()
	l.complete(repo)
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d kills; %d writes and %d pushes were acknowledged", *kills, l.writes, l.pushed)
	if l.writes < 10**kills || l.pushed < 1 {
		t.Error("the server was not under load")
	}
}

// bootServer starts a control plane without an agent.
func bootServer(t testing.TB) *machine {
	t.Helper()
	m := newMachine(t, dataDir(t), "server")
	m.up()
	return m
}

func (m *machine) clientset() *kubernetes.Clientset {
	m.t.Helper()
	set, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://127.0.0.1:7443", BearerToken: m.token(), Timeout: 10 * time.Second, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(m.dir, "ca.crt")},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return set
}

// load is what writers know to have been acknowledged.
type load struct {
	m   *machine
	set *kubernetes.Clientset

	mu sync.Mutex
	// acked is the newest value of each ConfigMap in the namespace default.
	acked  map[string]int
	writes int
	pushed int
}

func (l *load) ack(name string, value int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[name] = value
	l.writes++
}

func numbered(name string, n int) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": strconv.Itoa(n)}}
}

// count writes ever larger numbers into one object.
func (l *load) count(ctx context.Context, name string) {
	maps := l.set.CoreV1().ConfigMaps("default")
	for n := 0; ctx.Err() == nil; {
		_, err := maps.Update(ctx, numbered(name, n), metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = maps.Create(ctx, numbered(name, n), metav1.CreateOptions{})
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // it is being started again
			continue
		}
		l.ack(name, n)
		n++
	}
}

// create makes ever more objects.
func (l *load) create(ctx context.Context, prefix string) {
	for n := 0; ctx.Err() == nil; {
		name := fmt.Sprintf("%s-%d", prefix, n)
		_, err := l.set.CoreV1().ConfigMaps("default").Create(ctx, numbered(name, n), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) { // the answer to an earlier attempt was lost
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.ack(name, n)
		n++
	}
}

func (l *load) repository() *repository {
	l.m.t.Helper()
	r := &repository{m: l.m, dir: filepath.Join(l.m.dir, "clone"), name: "atoms"}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		l.m.t.Fatal(err)
	}
	l.atoms(r, 0)
	r.git("init", "-q", "-b", "main")
	r.git("config", "user.name", "Ada")
	r.git("config", "user.email", "ada@example.org")
	r.git("remote", "add", "origin", fmt.Sprintf("https://admin:%s@127.0.0.1:7443/git/atoms.git", l.m.token()))
	r.push("Commit 0")
	return r
}

// atoms writes objects that all hold the same number.
func (l *load) atoms(r *repository, n int) {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: atoms}\n")
	for i := range atoms {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: atom-%d, namespace: atoms}\ndata: {n: %q}\n", i, strconv.Itoa(n))
	}
	r.write("atoms.yaml", b.String())
}

// push pushes commit after commit; one whose answer was lost is pushed again.
func (l *load) push(ctx context.Context, r *repository) {
	for n := 1; ctx.Err() == nil; n++ {
		l.atoms(r, n)
		r.git("commit", "-q", "-a", "-m", fmt.Sprintf("Commit %d", n))
		for ctx.Err() == nil {
			if _, err := l.m.try("git", "-C", r.dir, "push", "-q", "origin", "main"); err == nil {
				l.mu.Lock()
				l.pushed++
				l.mu.Unlock()
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// whole checks that what one commit wrote is there alike.
func (l *load) whole() {
	l.m.t.Helper()
	list, err := l.set.CoreV1().ConfigMaps("atoms").List(l.m.t.Context(), metav1.ListOptions{LabelSelector: "berth.dev/source=atoms"})
	if err != nil {
		l.m.t.Fatal(err)
	}
	if n := len(list.Items); n != 0 && n != atoms {
		l.m.t.Fatalf("%d of %d objects of a commit are there", n, atoms)
	}
	for _, c := range list.Items {
		if c.Data["n"] != list.Items[0].Data["n"] {
			l.m.t.Fatalf("%s is of commit %s, %s of commit %s", c.Name, c.Data["n"], list.Items[0].Name, list.Items[0].Data["n"])
		}
	}
}

// complete checks that all that was acknowledged is there.
func (l *load) complete(r *repository) {
	l.m.t.Helper()
	l.whole()
	list, err := l.set.CoreV1().ConfigMaps("default").List(l.m.t.Context(), metav1.ListOptions{})
	if err != nil {
		l.m.t.Fatal(err)
	}
	have := map[string]int{}
	for _, c := range list.Items {
		have[c.Name], _ = strconv.Atoi(c.Data["n"]) // what is no number is smaller than what was acknowledged
	}
	l.mu.Lock()
	for name, n := range l.acked {
		if got, ok := have[name]; !ok || got < n || got > n+1 { // the last attempt may have been carried out
			l.m.t.Errorf("%s holds %d (%v), but %d was acknowledged", name, got, ok, n)
		}
	}
	l.mu.Unlock()
	r.git("push", "-q", "origin", "main")
	r.ready()
	l.whole()
}
