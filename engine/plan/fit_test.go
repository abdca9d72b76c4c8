package plan_test

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/api/client"
	"berth.dev/berth/engine/plan"
)

// seats is a room that holds a number of Pods, whatever they need.
type seats struct {
	size  int
	taken map[*corev1.Pod]bool
	of    map[string][]*corev1.Pod
	// placed counts the new Pods.
	placed int
}

var _ plan.Room = (*seats)(nil)

// fill seats the Pods of live Deployments.
func (s *seats) fill(live map[string]client.Object) {
	s.taken, s.of = map[*corev1.Pod]bool{}, map[string][]*corev1.Pod{}
	for name, obj := range live {
		d, ok := obj.(*appsv1.Deployment)
		if !ok {
			continue
		}
		for range *d.Spec.Replicas {
			p := &corev1.Pod{}
			s.taken[p] = true
			s.of[name] = append(s.of[name], p)
		}
	}
}

func (s *seats) PodsOf(live client.Object) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range s.of[key(live).String()] {
		if s.taken[p] {
			out = append(out, p)
		}
	}
	return out
}

func (s *seats) Remove(p *corev1.Pod) { delete(s.taken, p) }

func (s *seats) Place(*corev1.Pod) (string, []string, bool) {
	if s.placed == 100 {
		return "", nil, false
	}
	if len(s.taken)+s.placed >= s.size {
		return "0/1 nodes fit: 1 lacks room", nil, true
	}
	s.placed++
	return "", nil, true
}

// TestARolloutFitsWhenItsStepsDo: a rollout goes on as far as an old Pod makes
// room for a new one.
func TestARolloutFitsWhenItsStepsDo(t *testing.T) {
	for name, c := range map[string]struct {
		size, surge, unavailable int
		recreate                 bool
		replicas                 int32
		want                     string
	}{
		"room for one more":               {size: 4, surge: 1, replicas: 3},
		"no room for one more":            {size: 3, surge: 1, replicas: 3, want: "0 of 3 new pods fit: 0/1 nodes fit: 1 lacks room"},
		"one may be missing":              {size: 3, surge: 1, unavailable: 1, replicas: 3},
		"all end first":                   {size: 3, recreate: true, replicas: 3},
		"it grows beyond what there is":   {size: 4, surge: 1, unavailable: 1, replicas: 6, want: "1 of 6 new pods fit: 0/1 nodes fit: 1 lacks room"},
		"fewer than before":               {size: 3, surge: 1, replicas: 2},
		"more than anybody will look for": {size: 1000, surge: 1, unavailable: 1, replicas: 200, want: "not looked at: whether its new pods fit, for the plan makes too many"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLarge(t)
			live, now := l.deployment(1, "web:1", 3), l.deployment(1, "web:2", c.replicas)
			surge, unavailable := intstr.FromInt(c.surge), intstr.FromInt(c.unavailable)
			now.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
			if c.recreate {
				now.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
			}
			l.want(now, live)
			room := &seats{size: c.size}
			room.fill(map[string]client.Object{key(live).String(): live})
			l.in.Room = room
			effects := plan.Make(l.in).Steps[0].Effects
			last := effects[len(effects)-1]
			if c.want == "" && len(effects) > 1 && c.replicas == 3 || c.want != "" && last != c.want {
				t.Errorf("got %q, want %q", effects, c.want)
			}
			if c.want == "" && fmt.Sprint(effects) != fmt.Sprint(plan.Make(withoutRoom(l.in)).Steps[0].Effects) {
				t.Errorf("got %q, which says more than without a room", effects)
			}
		})
	}
}

func withoutRoom(in plan.Input) plan.Input {
	in.Room = nil
	return in
}

// TestAStepSaysWhatItWaitsFor: the objects of the first wave wait for nothing.
func TestAStepSaysWhatItWaitsFor(t *testing.T) {
	l := newLarge(t)
	for i := range 3 {
		l.want(l.configMap("shop", i, "x"), nil)
		l.in.Wanted[i].Wave = i - 1
	}
	want := "[] [waits until what is in the waves before 0 is healthy] [waits until what is in the waves before 1 is healthy]"
	p := plan.Make(l.in)
	if got := fmt.Sprint(p.Steps[0].Effects, p.Steps[1].Effects, p.Steps[2].Effects); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
