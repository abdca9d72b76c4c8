package strategy_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"berth.dev/berth/engine/strategy"
)

func TestLimitsOfPercentagesAndNumbers(t *testing.T) {
	for _, c := range []struct {
		replicas                    int32
		maxSurge, maxUnavailable    string
		wantSurge, wantMayBeMissing int32
	}{
		{3, "25%", "25%", 1, 0},
		{10, "25%", "25%", 3, 2},
		{3, "1", "0", 1, 0},
		{3, "0", "0", 0, 1},
		{1, "0%", "25%", 0, 1},
		{2, "0", "5", 0, 2},
		{0, "25%", "25%", 0, 0},
	} {
		surge, unavailable := intstr.Parse(c.maxSurge), intstr.Parse(c.maxUnavailable)
		d := &appsv1.Deployment{}
		d.Spec.Replicas = &c.replicas
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
		if s, u := strategy.Limits(d); s != c.wantSurge || u != c.wantMayBeMissing {
			t.Errorf("%d replicas, %s, %s: %d and %d, want %d and %d", c.replicas, c.maxSurge, c.maxUnavailable, s, u, c.wantSurge, c.wantMayBeMissing)
		}
	}
}
