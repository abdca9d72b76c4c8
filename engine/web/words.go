package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"berth.dev/berth/api/v1alpha1"
)

// when is a moment in a page model; zero is no moment.
type when struct{ time.Time }

func at(t time.Time) when { return when{t.UTC()} }

// age is how long ago a moment is, as kubectl says it.
func age(now, t time.Time) string {
	if d := now.Sub(t); d >= time.Second {
		return duration.HumanDuration(d) + " ago"
	}
	return "just now"
}

// span is a duration with the digits that matter.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// short is a commit as people write it.
func short(commit string) string { return commit[:min(len(commit), 10)] }

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// cores are thousandths of a core in cores.
func cores(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

// gib are bytes in the unit that fits.
func gib(bytes int64) string {
	const mib = 1 << 20
	if bytes < 1024*mib {
		return fmt.Sprintf("%d MiB", bytes/mib)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(bytes)/(1024*mib)), ".0") + " GiB"
}

func refWords(r v1alpha1.Ref) string {
	switch {
	case r.Commit != "":
		return "commit " + short(r.Commit)
	case r.Tag != "":
		return "tag " + r.Tag
	}
	return "branch " + r.Branch
}
