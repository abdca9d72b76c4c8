package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
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
	case err == nil || errors.Is(err, ErrClosed):
		return err
	case is(rpctypes.ErrGRPCNoSpace):
		return errors.New("the database of etcd is full (alarm NOSPACE), nothing was changed: compact and defragment it (etcdctl compact, etcdctl defrag), raise --quota-backend-bytes if need be, then etcdctl alarm disarm")
	case is(rpctypes.ErrGRPCRequestTooLarge) || codeOf(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max"):
		return fmt.Errorf("etcd takes no request of this size, nothing was changed: %w", err)
	case codeOf(err) == codes.PermissionDenied || codeOf(err) == codes.Unauthenticated:
		return fmt.Errorf("etcd at %s refuses: %w; its user needs to read and write below %s", e.where(), err, e.keys.prefix)
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, e.reason(err))
}

// reason is what an error of gRPC says, without its wrapping. An answer that does
// not come in time has no reason, so that is looked for.
func (e *Etcd) reason(err error) string {
	if codeOf(err) == codes.DeadlineExceeded {
		return e.diagnose()
	}
	text := err.Error()
	if s, ok := status.FromError(err); ok && s.Message() != "" {
		text = s.Message()
	}
	return "etcd at " + e.where() + ": " + text
}

// diagnose connects with each member and says what goes wrong.
func (e *Etcd) diagnose() string {
	dialer := &net.Dialer{Timeout: diagnoseTimeout}
	var faults []string
	for _, address := range e.members {
		var c net.Conn
		var err error
		if e.tls != nil {
			c, err = tls.DialWithDialer(dialer, "tcp", address, e.tls)
		} else {
			c, err = dialer.Dial("tcp", address)
		}
		if err != nil {
			faults = append(faults, address+": "+strings.TrimPrefix(err.Error(), "dial tcp "+address+": "))
			continue
		}
		c.Close()
	}
	if len(faults) == 0 {
		return "etcd at " + e.where() + " gives no answer in time: it has lost its quorum, is too busy, or wants TLS (--store etcds://…)"
	}
	return "etcd at " + strings.Join(faults, "; ")
}
