package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Addresses hands out the addresses of one prefix. Each address in use is a
// file that names its pod, made before the address is given to anything: a
// killed agent leaks none, for Keep finds the files of pods that are gone.
type Addresses struct {
	dir    string
	prefix netip.Prefix

	mu   sync.Mutex
	next netip.Addr
	used map[netip.Addr]string
	of   map[string]netip.Addr
}

// OpenAddresses reads the addresses in use. Files outside prefix are of a
// former prefix and are removed.
func OpenAddresses(dir string, prefix netip.Prefix) (*Addresses, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of addresses: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	a := &Addresses{dir: dir, prefix: prefix.Masked(), used: map[netip.Addr]string{}, of: map[string]netip.Addr{}}
	a.next = a.Gateway().Next()
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		ip, err := netip.ParseAddr(e.Name())
		uid, readErr := os.ReadFile(file)
		owner := strings.TrimSpace(string(uid))
		if err != nil || readErr != nil || owner == "" || !a.prefix.Contains(ip) {
			if err := os.Remove(file); err != nil {
				return nil, fmt.Errorf("remove a stale address: %w", err)
			}
			continue
		}
		a.used[ip], a.of[owner] = owner, ip
	}
	return a, nil
}

// Gateway is the first address of the prefix: the node's own.
func (a *Addresses) Gateway() netip.Addr { return a.prefix.Addr().Next() }

// Take returns the pod's address, a new one if it has none.
func (a *Addresses) Take(uid string) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ip, ok := a.of[uid]; ok {
		return ip, nil
	}
	// Go round, so that an address rests as long as it can before it is used again.
	for ip, turned := a.next, false; ; ip = ip.Next() {
		if !a.prefix.Contains(ip) || !a.prefix.Contains(ip.Next()) { // the last one is the broadcast address
			if turned {
				return netip.Addr{}, fmt.Errorf("all %d addresses of %s are in use: a node needs a larger pod range", len(a.used), a.prefix)
			}
			turned = true
			ip = a.Gateway()
			continue
		}
		if turned && ip == a.next {
			return netip.Addr{}, fmt.Errorf("all %d addresses of %s are in use: a node needs a larger pod range", len(a.used), a.prefix)
		}
		if a.used[ip] != "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(a.dir, ip.String()), []byte(uid), 0o644); err != nil {
			return netip.Addr{}, fmt.Errorf("note address %s: %w", ip, err)
		}
		a.used[ip], a.of[uid], a.next = uid, ip, ip.Next()
		return ip, nil
	}
}

// Release gives the pod's address back.
func (a *Addresses) Release(uid string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ip, ok := a.of[uid]
	if !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(a.dir, ip.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("release address %s: %w", ip, err)
	}
	delete(a.used, ip)
	delete(a.of, uid)
	return nil
}

// Owners returns who has an address.
func (a *Addresses) Owners() map[string]netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]netip.Addr, len(a.of))
	for uid, ip := range a.of {
		out[uid] = ip
	}
	return out
}
