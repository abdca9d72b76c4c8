package apiserver_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"berth.dev/berth/engine/apiserver"
)

// openWatches is how many watches of ConfigMaps the server says that it serves.
func (s *server) openWatches(t *testing.T) string {
	t.Helper()
	_, body := s.do(t, admin, "GET", "/metrics", "")
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `resource="configmaps"`) {
			fields := strings.Fields(line)
			return fields[len(fields)-1]
		}
	}
	return "0"
}

// TestASlowWatcherIsCutOff: one client asks for a watch and never reads; what
// it is to be sent is far more than the buffers between take.
func TestASlowWatcherIsCutOff(t *testing.T) {
	const changes = 200
	s := serve(t, func(o *apiserver.Options) { o.WatchWrite = 2 * time.Second })
	address := strings.TrimPrefix(s.url, "https://")
	config := s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	slow, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "GET %s?watch=true HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", configMaps, address, admin)
	head, err := bufio.NewReader(slow).ReadString('\n')
	if err != nil || !strings.Contains(head, "200") {
		t.Fatalf("%q %v", head, err)
	}
	big := strings.Repeat("x", 200<<10)
	began := time.Now()
	fast := s.frames(t, "", changes, func() {
		if open := s.openWatches(t); open != "2" {
			t.Errorf("%s watches are open", open)
		}
		go func() {
			for i := range changes {
				c := configMap(fmt.Sprintf("c%03d", i), nil)
				c.Data = map[string]string{"big": big}
				if err := s.Create(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
		}()
	})
	for i, f := range fast {
		if want := fmt.Sprintf("c%03d", i); f.Object.Metadata.Name != want || f.Type != "ADDED" {
			t.Fatalf("event %d of the other watcher is %s %s, want %s", i, f.Type, f.Object.Metadata.Name, want)
		}
	}
	t.Logf("the other watcher had %d MiB after %v", changes*len(big)>>20, time.Since(began))
	for end := time.Now().Add(20 * time.Second); s.openWatches(t) != "0"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s watches are still open: the one that does not read was not cut off", s.openWatches(t))
		}
	}
}
