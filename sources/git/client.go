package git

import "net/http"

// HTTPClient is a client for addresses that come out of the cluster: it connects
// to no loopback, link-local or metadata address unless that is allowed, and
// follows redirects to https alone.
func HTTPClient(allowLocal bool) *http.Client { return httpClient(allowLocal, nil) }
