package services

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"berth.dev/berth/nodeagent/pods"
)

var _ pods.ServiceLinks = (*Index)(nil)

// ServiceEnv implements pods.ServiceLinks: the variables of the Services of a
// namespace and of default/kubernetes; with all unset of the latter alone.
func (x *Index) ServiceEnv(namespace string, all bool) []string {
	var out []string
	for _, key := range x.Keys() {
		kubernetes := key.Namespace == "default" && key.Name == "kubernetes"
		if !kubernetes && (!all || key.Namespace != namespace) {
			continue
		}
		if svc, _ := x.Get(key); svc != nil && svc.ClusterIP.IsValid() && len(svc.Ports) > 0 {
			out = append(out, env(svc)...)
		}
	}
	return out
}

// env is what Docker's links would have set, as Kubernetes has it
// (k8s.io/kubernetes/pkg/kubelet/envvars).
func env(svc *Service) []string {
	name := strings.ToUpper(strings.ReplaceAll(svc.Name, "-", "_"))
	ip := svc.ClusterIP.String()
	out := []string{
		name + "_SERVICE_HOST=" + ip,
		fmt.Sprintf("%s_SERVICE_PORT=%d", name, svc.Ports[0].Port),
	}
	for _, p := range svc.Ports {
		if p.Name != "" {
			out = append(out, fmt.Sprintf("%s_SERVICE_PORT_%s=%d", name, strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), p.Port))
		}
	}
	for i, p := range svc.Ports {
		protocol := strings.ToLower(string(p.Protocol))
		url := protocol + "://" + net.JoinHostPort(ip, strconv.Itoa(int(p.Port)))
		if i == 0 {
			out = append(out, name+"_PORT="+url)
		}
		prefix := fmt.Sprintf("%s_PORT_%d_%s", name, p.Port, strings.ToUpper(protocol))
		out = append(out, prefix+"="+url, prefix+"_PROTO="+protocol, fmt.Sprintf("%s_PORT=%d", prefix, p.Port), prefix+"_ADDR="+ip)
	}
	return out
}
