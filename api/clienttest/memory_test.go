package clienttest_test

import (
	"testing"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/clienttest"
)

func TestMemory(t *testing.T) {
	clienttest.Run(t, func(*testing.T) client.Client { return clienttest.NewMemory() })
}
