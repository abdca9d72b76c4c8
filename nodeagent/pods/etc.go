package pods

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostLimit is the longest host name (sethostname(2) minus the final zero).
const hostLimit = 63

func hostname(pod *corev1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > hostLimit {
		name = strings.TrimRight(name[:hostLimit], "-.")
	}
	return name
}

// etcFiles are the files that a pod's containers find in /etc.
func etcFiles(pod *corev1.Pod, ip netip.Addr, domain string, dns netip.Addr, hostResolv string) map[string]string {
	files := map[string]string{"resolv.conf": resolvConf(pod, domain, dns, hostResolv)}
	if !pod.Spec.HostNetwork {
		files["hostname"] = hostname(pod) + "\n"
		files["hosts"] = hosts(pod, ip, domain)
	}
	return files
}

func hosts(pod *corev1.Pod, ip netip.Addr, domain string) string {
	var b strings.Builder
	b.WriteString("# Written by Berth.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if ip.IsValid() {
		name := hostname(pod)
		if pod.Spec.Subdomain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s.%s.svc.%s\t%s\n", ip, name, pod.Spec.Subdomain, pod.Namespace, domain, name)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, name)
		}
	}
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	return b.String()
}

// resolvConf follows dnsPolicy and dnsConfig.
func resolvConf(pod *corev1.Pod, domain string, dns netip.Addr, host string) string {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	var servers, search, options []string
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		servers, search, options = parseResolv(host)
	default:
		servers = []string{dns.String()}
		search = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		_, more, _ := parseResolv(host)
		search = append(search, more...)
		options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		servers = append(servers, c.Nameservers...)
		search = append(search, c.Searches...)
		for _, o := range c.Options {
			text := o.Name
			if o.Value != nil {
				text += ":" + *o.Value
			}
			options = slices.DeleteFunc(options, func(have string) bool {
				return have == o.Name || strings.HasPrefix(have, o.Name+":")
			})
			options = append(options, text)
		}
	}
	var b strings.Builder
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}

func parseResolv(text string) (servers, search, options []string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			servers = append(servers, f[1])
		case "search", "domain":
			search = f[1:]
		case "options":
			options = append(options, f[1:]...)
		}
	}
	return servers, search, options
}

// writeEtc writes the files below dir and returns their mounts. A file is
// written in place: a running container has it mounted.
func writeEtc(dir string, files map[string]string) ([]Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var out []Mount
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		text, ok := files[name]
		if !ok {
			continue
		}
		file := filepath.Join(dir, name)
		if have, err := os.ReadFile(file); err != nil || string(have) != text {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				return nil, err
			}
		}
		out = append(out, Mount{Source: file, Destination: "/etc/" + name})
	}
	return out, nil
}
