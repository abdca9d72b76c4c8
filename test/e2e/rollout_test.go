package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// traffic asks a URL 200 times a second, each time over a new connection, until the
// context ends.
type traffic struct {
	mu     sync.Mutex
	total  int
	failed []string
	seen   map[string]int
}

func (l *traffic) run(ctx context.Context, url string) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var group sync.WaitGroup
	for ctx.Err() == nil {
		<-tick.C
		group.Go(func() { l.ask(client, url) })
	}
	group.Wait()
}

func (l *traffic) ask(client *http.Client, url string) {
	response, err := client.Get(url)
	text := ""
	if err == nil {
		var body []byte
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
		text = strings.TrimSpace(string(body))
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, text)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if err != nil {
		l.failed = append(l.failed, err.Error())
		return
	}
	l.seen[text]++
}

// TestARolloutFailsNoRequest changes four replicas by push while 200 requests a
// second come in.
func TestARolloutFailsNoRequest(t *testing.T) {
	m := boot(t)
	m.berth("image", "load", m.binDir+"/busybox.tar")
	r := m.repository("web", "../test/e2e/testdata/rollout")
	r.ready()
	address := m.kubectl("get", "service", "web", "-n", "web", "-o", "jsonpath={.spec.clusterIP}")
	l := &traffic{seen: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(ctx, "http://"+address+"/")
	}()
	time.Sleep(time.Second)
	r.edit("web.yaml", "version 1", "version 2")
	r.push("Version 2")
	r.ready()
	time.Sleep(3 * time.Second) // the last of the old ones end
	stop()
	<-done
	if len(l.failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(l.failed), l.total, l.failed[:min(5, len(l.failed))])
	}
	if l.seen["version 1"] == 0 || l.seen["version 2"] == 0 || l.total < 500 {
		t.Errorf("%d requests, answers %v", l.total, l.seen)
	}
	t.Logf("%d requests, answers %v", l.total, l.seen)
}
