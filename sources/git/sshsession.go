package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh"
)

// sshSession is git-upload-pack at the other end of an ssh connection. go-git has
// one too, which follows the ssh configuration and the proxy of whoever runs this
// program to another address than the one that was looked at, and takes as much
// as a remote sends.
type sshSession struct {
	client *ssh.Client
	shell  *ssh.Session
	in     io.WriteCloser
	out    io.Reader
	errs   *firstLine
	refs   *packp.AdvRefs
	asked  bool
}

var _ transport.UploadPackSession = (*sshSession)(nil)

// dialSSH begins a session. It ends when ctx does.
func dialSSH(ctx context.Context, address, path string, config *ssh.ClientConfig) (_ *sshSession, err error) {
	conn, err := (&net.Dialer{Timeout: sshTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &ErrUnreachable{Err: err}
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if err != nil {
			_ = conn.Close()
			if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("the host takes a connection and does not answer: %w", err)
			}
			err = &ErrUnreachable{Err: err}
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(sshTimeout)); err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		return nil, err
	}
	s := &sshSession{client: ssh.NewClient(c, channels, requests), errs: &firstLine{}}
	if s.shell, err = s.client.NewSession(); err != nil {
		return nil, err
	}
	s.shell.Stderr = s.errs
	if s.in, err = s.shell.StdinPipe(); err != nil {
		return nil, err
	}
	if s.out, err = s.shell.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := s.shell.Start("git-upload-pack '" + strings.ReplaceAll(path, "'", `'\''`) + "'"); err != nil {
		return nil, err
	}
	return s, conn.SetDeadline(time.Time{})
}

// AdvertisedReferences implements transport.Session.
func (s *sshSession) AdvertisedReferences() (*packp.AdvRefs, error) {
	return s.AdvertisedReferencesContext(context.Background())
}

// AdvertisedReferencesContext implements transport.Session.
func (s *sshSession) AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error) {
	if s.refs != nil {
		return s.refs, nil
	}
	refs := packp.NewAdvRefs()
	err := refs.Decode(guardRefs(s.out))
	switch {
	case errors.Is(err, packp.ErrEmptyAdvRefs), err == nil && refs.IsEmpty():
		return nil, transport.ErrEmptyRemoteRepository
	case errors.Is(err, packp.ErrEmptyInput):
		_ = s.shell.Wait() // its end is the error; all that it said is there then
		if text := s.errs.String(); text != "" {
			return nil, fmt.Errorf("the server says: %s", text)
		}
		return nil, errors.New("the server ends the connection without a word")
	case err != nil:
		return nil, err
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	s.refs = refs
	return refs, nil
}

// UploadPack implements transport.UploadPackSession.
func (s *sshSession) UploadPack(_ context.Context, q *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	s.asked = true
	if err := q.UploadRequest.Encode(s.in); err != nil {
		return nil, err
	}
	if err := q.UploadHaves.Encode(s.in, true); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(s.in).EncodeString("done\n"); err != nil {
		return nil, err
	}
	if err := s.in.Close(); err != nil {
		return nil, err
	}
	resp := packp.NewUploadPackResponse(q)
	if err := resp.Decode(&body{guardPack(s.out), s}); err != nil {
		return nil, err
	}
	return resp, nil
}

// Close implements io.Closer. Who has asked for nothing says so.
func (s *sshSession) Close() error {
	if !s.asked {
		s.asked = true
		_, _ = s.in.Write(pktline.FlushPkt) // a courtesy
	}
	if err := s.client.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// firstLine keeps the beginning of what is written.
type firstLine struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (f *firstLine) Write(p []byte) (int, error) {
	const longest = 300
	f.mu.Lock()
	defer f.mu.Unlock()
	f.b = append(f.b, p[:min(len(p), longest-len(f.b))]...)
	return len(p), nil
}

// String is it in one line.
func (f *firstLine) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(strings.Fields(string(f.b)), " ")
}
