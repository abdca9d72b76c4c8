package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	// patience is how long etcd may be away before calls no longer wait for it.
	patience = askTimeout
	// repeatEvery is the time between two lines of the log about one trouble.
	repeatEvery = 30 * time.Second
	// fullFor is how long a write that etcd had no space for is remembered.
	fullFor = 30 * time.Second
)

// trouble is what is wrong with etcd. It says in the log that etcd is away, from
// time to time, and once that it is back.
type trouble struct {
	log *slog.Logger

	mu sync.Mutex
	// last is what is wrong, since when; empty for nothing. told is when the log
	// was told.
	last        string
	since, told time.Time
	// full is when etcd last had no space for a write.
	full     time.Time
	fullText string
}

// Trouble says what is wrong with etcd; empty when all is well.
func (e *Etcd) Trouble() string {
	t := &e.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == "" && t.fullText != "" && time.Since(t.full) < fullFor {
		return t.fullText
	}
	return t.last
}

// away: etcd has been away for longer than a call should wait.
func (e *Etcd) away() bool {
	t := &e.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last != "" && time.Since(t.since) > patience
}

// report notes how a call went; nil for well.
func (e *Etcd) report(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	text := ""
	if err != nil {
		text = e.explain(err).Error()
	}
	e.trouble.note(text, full(err))
}

// written notes that etcd has space.
func (e *Etcd) written() {
	t := &e.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fullText = ""
}

func full(err error) bool {
	var known rpctypes.EtcdError
	return errors.As(rpctypes.Error(err), &known) && known == rpctypes.ErrNoSpace
}

func (t *trouble) note(text string, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if full {
		if t.fullText == "" || now.Sub(t.full) > fullFor {
			t.log.Warn("nothing can be written", "err", text)
		}
		t.full, t.fullText = now, text
		return
	}
	if text == "" {
		if t.last != "" {
			t.log.Info("the store is reachable again", "after", now.Sub(t.since).Round(time.Millisecond))
		}
		t.last, t.told = "", time.Time{}
		return
	}
	if t.last == "" {
		t.since = now
	}
	// The words differ from call to call; what is wrong does not.
	if now.Sub(t.told) > repeatEvery {
		t.log.Warn("trying again", "err", text)
		t.told = now
	}
	t.last = text
}
