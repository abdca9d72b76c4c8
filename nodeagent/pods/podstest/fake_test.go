package podstest_test

import (
	"testing"

	"berth.dev/berth/nodeagent/pods"
	"berth.dev/berth/nodeagent/pods/podstest"
)

func TestFake(t *testing.T) {
	podstest.Run(t, func(*testing.T) podstest.Setup {
		return podstest.Setup{Runtime: podstest.NewFake(), Sleeps: pods.Container{Args: []string{"sleep"}}, Exits: pods.Container{Args: []string{"exit", "3"}}}
	})
}
