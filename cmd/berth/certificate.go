package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"berth.dev/berth/engine/access"
)

// certificate signs a client's request for a certificate.
func (e *tokenEndpoints) certificate(w http.ResponseWriter, r *http.Request) {
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		http.Error(w, "read the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	q := r.URL.Query()
	name, role := q.Get("name"), access.Role(q.Get("role"))
	life, err := time.ParseDuration(q.Get("life"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cert, err := access.SignClient(e.dataDir, request, name, role, life, time.Now())
	if err != nil {
		e.fail(w, "sign a certificate", err)
		return
	}
	e.log.Info("certificate signed", "name", name, "role", role, "life", life.String(), "by", userName(r))
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(cert) // the client is gone: nobody to tell
}

// createCertificate makes a key here and has the server sign a certificate for it.
func (r *remote) createCertificate(ctx context.Context, name, role string, life time.Duration) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a request for a certificate: %w", err)
	}
	body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
	q := url.Values{"name": {name}, "role": {role}, "life": {life.String()}}
	response, err := r.call(ctx, http.MethodPost, "/berth/v1/certificates?"+q.Encode(), bytes.NewReader(body), nil)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if cert, err = io.ReadAll(io.LimitReader(response.Body, 1<<16)); err != nil {
		return nil, nil, fmt.Errorf("read the certificate: %w", err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
