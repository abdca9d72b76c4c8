package git

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	neturl "net/url"
	"slices"
	"strings"

	"berth.dev/berth/api/v1alpha1"
)

const (
	// batchSize is how many objects one request asks for; that many are taken by
	// all servers.
	batchSize   = 100
	maxBatch    = 4 << 20 // the longest answer, in bytes
	lfsMimeType = "application/vnd.git-lfs+json"
)

// batchObject is an object in the batch API of Git LFS,
// https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
type batchObject struct {
	OID     string                 `json:"oid"`
	Size    int64                  `json:"size"`
	Actions map[string]batchAction `json:"actions,omitempty"`
	Error   *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

type batchAction struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

type batch struct {
	Operation string        `json:"operation,omitempty"`
	Transfers []string      `json:"transfers,omitempty"`
	Transfer  string        `json:"transfer,omitempty"`
	Objects   []batchObject `json:"objects"`
	HashAlgo  string        `json:"hash_algo,omitempty"`
}

// lfsServer is where the large files of one repository are.
type lfsServer struct {
	client *http.Client
	// url of the repository, and what opens it.
	url         *neturl.URL
	credentials Credentials
}

// lfsServer finds the server of a repository: the Source's, or one of a submodule.
func (v *visit) lfsServer(raw string) (*lfsServer, error) {
	u, err := v1alpha1.ParseURL(raw)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("large files are fetched over https alone, and this is a URL of %s; give the Source an https url", u.Scheme)
	}
	s := &lfsServer{url: u}
	if sameHost(v.src.Spec.URL, raw) {
		s.credentials = v.credentials
	}
	client, err := v.fetcher.https(s.credentials.CA)
	if err != nil {
		return nil, err
	}
	own := *client
	own.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if !sameHost(r.URL.String(), via[0].URL.String()) {
			r.Header = http.Header{} // what was for the one is not for the other
		}
		return client.CheckRedirect(r, via)
	}
	s.client = &own
	return s, nil
}

// downloadLarge fetches objects, of the sizes that are said.
func (c *clone) downloadLarge(ctx context.Context, v *visit, raw string, sizes map[string]int64) error {
	server, err := v.lfsServer(raw)
	if err != nil {
		return err
	}
	for oids := range slices.Chunk(slices.Sorted(maps.Keys(sizes)), batchSize) {
		q := batch{Operation: "download", Transfers: []string{"basic"}, HashAlgo: "sha256"}
		for _, oid := range oids {
			q.Objects = append(q.Objects, batchObject{OID: oid, Size: sizes[oid]})
		}
		answer, err := server.ask(ctx, q)
		if err != nil {
			return err
		}
		for _, o := range q.Objects {
			action, err := answer.download(o.OID)
			if err != nil {
				return err
			}
			body, err := server.get(ctx, action)
			if err != nil {
				return fmt.Errorf("object %.10s: %w", o.OID, err)
			}
			err = c.storeLarge(body, o.OID, o.Size)
			_ = body.Close() // all that was wanted of it was read
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// download is what the server says of an object.
func (b *batch) download(oid string) (batchAction, error) {
	for _, o := range b.Objects {
		if o.OID != oid {
			continue
		}
		if o.Error != nil {
			return batchAction{}, fmt.Errorf("object %.10s: the server answers %d: %.300s; push it with git lfs push --all", oid, o.Error.Code, o.Error.Message)
		}
		if action, ok := o.Actions["download"]; ok {
			return action, nil
		}
	}
	return batchAction{}, fmt.Errorf("object %.10s: the server does not have it; push it with git lfs push --all", oid)
}

// ask makes one request of the batch API.
func (s *lfsServer) ask(ctx context.Context, q batch) (*batch, error) {
	at := *s.url
	at.User = nil
	at.Path = strings.TrimSuffix(strings.TrimSuffix(at.Path, "/"), ".git") + ".git/info/lfs/objects/batch"
	content, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", lfsMimeType)
	r.Header.Set("Content-Type", lfsMimeType)
	s.authenticate(r)
	body, err := s.do(r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err = io.ReadAll(io.LimitReader(body, maxBatch+1))
	var answer batch
	if err == nil && (len(content) > maxBatch || json.Unmarshal(content, &answer) != nil) {
		err = errors.New("the server's answer is none of Git LFS")
	}
	if err == nil && answer.Transfer != "" && answer.Transfer != "basic" {
		err = fmt.Errorf("the server offers the transfer %q; only basic is supported", answer.Transfer)
	}
	return &answer, err
}

// get begins a download. The headers in the server's answer go to the address in
// it, and our credentials only where that is the host of the repository.
func (s *lfsServer) get(ctx context.Context, a batchAction) (io.ReadCloser, error) {
	u, err := s.url.Parse(a.Href)
	if err != nil || u.Scheme != "https" && u.Scheme != s.url.Scheme || u.Host == "" {
		return nil, errors.New("the server names an address that is none of https")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for name, value := range a.Header {
		if !strings.EqualFold(name, "Host") {
			r.Header.Set(name, value)
		}
	}
	if r.Header.Get("Authorization") == "" && sameHost(s.url.String(), u.String()) {
		s.authenticate(r)
	}
	return s.do(r)
}

func (s *lfsServer) authenticate(r *http.Request) {
	if c := s.credentials; c.Username != "" || c.Password != "" {
		r.SetBasicAuth(c.Username, c.Password)
	}
}

func (s *lfsServer) do(r *http.Request) (io.ReadCloser, error) {
	resp, err := s.client.Do(r)
	if err != nil {
		var at *neturl.Error
		if errors.As(err, &at) {
			err = at.Err // its address may be signed, and that be a secret
		}
		return nil, &ErrUnreachable{Err: err}
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what can be read is shown
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, errors.New("the server of Git LFS wants credentials, or refuses those that it was given; look at the Secret that spec.credentials names")
	}
	return nil, fmt.Errorf("the server of Git LFS answers %d: %s", resp.StatusCode, strings.Join(strings.Fields(string(text)), " "))
}
