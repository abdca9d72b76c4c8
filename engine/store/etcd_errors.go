package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrUnavailable says that the store could not be reached in time. What was
// asked may be asked again.
var ErrUnavailable = errors.New("the store is not reachable")

// ErrUnknown says that a write was sent, but not whether it was carried out.
var ErrUnknown = errors.New("the store did not say whether the write was carried out; look before you repeat it")

// diagnoseTimeout bounds a look at one member.
const diagnoseTimeout = 500 * time.Millisecond

// codeOf is the gRPC code of an error of etcd's client.
func codeOf(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &e) {
		return e.Code()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	if errors.Is(err, context.Canceled) {
		return codes.Canceled
	}
	return status.Code(err)
}

// refused: etcd (or the client) said no, so nothing was changed. Any other error
// leaves open whether the request was carried out.
func refused(err error) bool {
	switch codeOf(err) {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.OutOfRange, codes.NotFound, codes.Unimplemented:
		return true
	}
	return false
}

// explain says in words what is wrong with etcd, and the remedy.
func (e *Etcd) explain(err error) error {
	var known rpctypes.EtcdError
	errors.As(rpctypes.Error(err), &known)
	is := func(e error) bool { return known == rpctypes.Error(e) }
	switch {
	case err == nil || errors.Is(err, ErrClosed) || errors.Is(err, ErrUnavailable):
		return err
	case is(rpctypes.ErrGRPCNoSpace):
		return unavailable("the database of etcd is full (alarm NOSPACE), nothing was changed: compact and defragment it (etcdctl compact, etcdctl defrag), raise --quota-backend-bytes if need be, then etcdctl alarm disarm")
	case is(rpctypes.ErrGRPCRequestTooLarge) || codeOf(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max"):
		return fmt.Errorf("etcd takes no request of this size, nothing was changed: %w", err)
	case is(rpctypes.ErrGRPCUserEmpty) || codeOf(err) == codes.PermissionDenied || codeOf(err) == codes.Unauthenticated:
		return fmt.Errorf("etcd at %s refuses (%s): it wants a user who may read and write below %s, which is the common name of the certificate that --store-cert and --store-key name",
			e.where(), message(err), e.keys.prefix)
	}
	return e.diagnose(err, is(rpctypes.ErrGRPCNoLeader) || is(rpctypes.ErrGRPCTimeoutDueToLeaderFail) || is(rpctypes.ErrGRPCTimeout) ||
		is(rpctypes.ErrGRPCTimeoutDueToConnectionLost) || codeOf(err) == codes.DeadlineExceeded)
}

// unavailable is ErrUnavailable in other words.
type unavailable string

func (u unavailable) Error() string { return string(u) }

// Is implements what errors.Is asks.
func (u unavailable) Is(target error) bool { return target == ErrUnavailable }

// message is what an error of gRPC says, without its wrapping.
func message(err error) string {
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		return s.Message()
	}
	return err.Error()
}

// diagnose says what keeps etcd from answering. silent: it did not say so itself.
func (e *Etcd) diagnose(err error, silent bool) error {
	faults := e.look()
	words := make([]string, len(faults))
	for i, f := range faults {
		words[i] = f.text
	}
	n := len(e.members)
	switch there := n - len(faults); {
	case there == 0:
		return unavailable("the store is not reachable: etcd at " + strings.Join(words, "; "))
	case 2*there <= n:
		return unavailable(fmt.Sprintf("the store has no quorum: only %d of the %d members of etcd can be reached (%s); it goes on by itself when more than half are there", there, n, strings.Join(words, "; ")))
	case silent && e.tls == nil:
		return unavailable("the store has no quorum or is too busy: etcd at " + e.where() + " gives no answer in time (or wants TLS: --store-ca)")
	case silent:
		return unavailable("the store has no quorum or is too busy: etcd at " + e.where() + " gives no answer in time")
	}
	return unavailable("the store is not reachable: etcd at " + e.where() + ": " + message(err))
}

// fault is why a member cannot be reached.
type fault struct {
	text string
	// distrust: its certificate is not one to trust, which waiting does not mend.
	distrust bool
}

// lookEvery is how long what a look has shown is good for.
const lookEvery = time.Second

// looks is the last look at the members.
type looks struct {
	mu     sync.Mutex
	at     time.Time
	faults []fault
}

// look connects with each member and returns what goes wrong.
func (e *Etcd) look() []fault {
	e.looks.mu.Lock()
	defer e.looks.mu.Unlock()
	if time.Since(e.looks.at) < lookEvery {
		return e.looks.faults
	}
	faults := make([]*fault, len(e.members))
	var wg sync.WaitGroup
	for i, address := range e.members {
		wg.Go(func() { faults[i] = e.lookAt(address) })
	}
	wg.Wait()
	e.looks.faults = nil
	for _, f := range faults {
		if f != nil {
			e.looks.faults = append(e.looks.faults, *f)
		}
	}
	e.looks.at = time.Now()
	return e.looks.faults
}

// lookAt returns nil when a member can be reached.
func (e *Etcd) lookAt(address string) *fault {
	dialer := &net.Dialer{Timeout: diagnoseTimeout}
	var c net.Conn
	var err error
	if e.tls != nil {
		c, err = tls.DialWithDialer(dialer, "tcp", address, e.tls)
	} else {
		c, err = dialer.Dial("tcp", address)
	}
	if err == nil {
		c.Close()
		return nil
	}
	if codeOf(err) == codes.DeadlineExceeded {
		return &fault{address + ": no answer", false}
	}
	var distrust *tls.CertificateVerificationError
	if errors.As(err, &distrust) {
		signed := "--store-ca " + e.options.Address.CA
		if e.options.Address.CA == "" {
			signed = "the system's authorities"
		}
		return &fault{fmt.Sprintf("%s: its certificate is not one to trust by %s: %v", address, signed, distrust.Err), true}
	}
	return &fault{address + ": " + strings.TrimPrefix(err.Error(), "dial tcp "+address+": "), false}
}

// hopeless: no member can be reached, and waiting does not mend it.
func (e *Etcd) hopeless() bool {
	faults := e.look()
	return len(faults) == len(e.members) && !slices.ContainsFunc(faults, func(f fault) bool { return !f.distrust })
}
