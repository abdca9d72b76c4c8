// Command inquirer asks the API for the pods of its namespace, as a program in a
// pod does: by the Service "kubernetes", with the mounted token and authority.
// It prints a line each time that the answer is another one.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const mounted = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	last := ""
	for {
		now, err := ask(os.Getenv("KUBERNETES_SERVICE_HOST"))
		if err == nil {
			now, err = ask("kubernetes.default.svc.cluster.local")
		}
		if err != nil {
			now = "error: " + err.Error()
		}
		if now != last {
			fmt.Println(now)
			last = now
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func ask(host string) (string, error) {
	ca, err := os.ReadFile(mounted + "ca.crt")
	if err != nil {
		return "", err
	}
	token, err := os.ReadFile(mounted + "token")
	if err != nil {
		return "", err
	}
	namespace, err := os.ReadFile(mounted + "namespace")
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	url := "https://" + net.JoinHostPort(host, os.Getenv("KUBERNETES_SERVICE_PORT")) + "/api/v1/namespaces/" + string(namespace) + "/pods"
	q, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	r, err := c.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	var answer struct {
		Message string
		Items   []struct{}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", r.StatusCode, answer.Message), nil
	}
	return fmt.Sprintf("200 %d pods", len(answer.Items)), nil
}
