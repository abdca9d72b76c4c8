package web

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/scheduler"
)

// overview is the model of the first page.
type overview struct {
	Sources []card
	// Troubled counts the Sources that need somebody.
	Troubled int
	Nodes    []node
	// Base is the address of this server as the reader knows it.
	Base string
}

// card is a Source on the first page.
type card struct {
	Name    string
	State   state
	Commit  commit
	Deploys string
	From    string
	// TimeToReady of the last change; empty until it is ready.
	TimeToReady string
	Objects     int
}

// commit is a commit as people speak of it.
type commit struct {
	ID, Author, Subject string
	Time                when
}

// node is a Node in the strip.
type node struct {
	Name   string
	State  state
	Pods   meter
	CPU    meter
	Memory meter
}

// meter is how much of something is taken.
type meter struct {
	Used, Total string
	// Percent is at most 100.
	Percent int64
}

func overviewOf(sources []*v1alpha1.Source, nodes []*corev1.Node, pods []*corev1.Pod, base string) overview {
	out := overview{Base: base}
	for _, s := range sources {
		c := cardOf(s, base)
		if c.State.Tone == toneBad || c.State.Word == "Held" {
			out.Troubled++
		}
		out.Sources = append(out.Sources, c)
	}
	slices.SortFunc(out.Sources, func(a, b card) int { return cmp.Compare(a.Name, b.Name) })
	used, running := map[string]scheduler.Requests{}, map[string]int64{}
	for _, p := range pods {
		n := p.Spec.NodeName
		if n == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		if used[n] == nil {
			used[n] = scheduler.Requests{}
		}
		used[n].Add(scheduler.PodRequests(p))
		running[n]++
	}
	for _, n := range nodes {
		out.Nodes = append(out.Nodes, nodeOf(n, used[n.Name], running[n.Name]))
	}
	slices.SortFunc(out.Nodes, func(a, b node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func cardOf(s *v1alpha1.Source, base string) card {
	c := card{Name: s.Name, State: stateOf(s), Deploys: deploys(s), From: from(s, base), TimeToReady: timeToReady(s)}
	if newest := cmp.Or(s.Status.Observed, s.Status.Applied); newest != nil {
		c.Commit = commitOf(newest)
	}
	for _, n := range s.Status.Objects {
		c.Objects += int(n)
	}
	return c
}

func commitOf(c *v1alpha1.Commit) commit {
	return commit{ID: short(c.ID), Author: cmp.Or(c.Author, c.Email), Subject: c.Subject, Time: at(c.Time.Time)}
}

// deploys is the part of the repository that a Source carries out.
func deploys(s *v1alpha1.Source) string {
	text := refWords(s.Spec.Ref)
	if s.Spec.Path != "" {
		text += ", folder " + s.Spec.Path
	}
	return text
}

// from is where the repository is, without any password.
func from(s *v1alpha1.Source, base string) string {
	if s.Spec.URL == "" {
		return base + "/git/" + s.Name + ".git"
	}
	u, err := url.Parse(s.Spec.URL)
	if err != nil {
		return "a URL that cannot be read"
	}
	u.User = nil
	return u.String()
}

// timeToReady is from the push, or the fetch, until everything was ready.
func timeToReady(s *v1alpha1.Source) string {
	t := s.Status.Timeline
	for i := range t {
		if t[i].Name == v1alpha1.StageReady {
			return span(t[i].Time.Sub(t[0].Time.Time).Round(time.Millisecond))
		}
	}
	return ""
}

func nodeOf(n *corev1.Node, used scheduler.Requests, pods int64) node {
	have := n.Status.Allocatable
	room, cpu, memory := have[corev1.ResourcePods], have[corev1.ResourceCPU], have[corev1.ResourceMemory]
	out := node{
		Name: n.Name, State: state{"Not ready", toneBad, "the node has not reported"},
		Pods:   meterOf(pods, room.Value(), decimal),
		CPU:    meterOf(used[corev1.ResourceCPU], cpu.MilliValue(), cores),
		Memory: meterOf(used[corev1.ResourceMemory], memory.Value(), gib),
	}
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		out.State.Reason = c.Message
		if c.Status == corev1.ConditionTrue {
			out.State = state{Word: "Ready", Tone: toneGood}
		}
	}
	if n.Spec.Unschedulable && out.State.Tone == toneGood {
		out.State = state{"Cordoned", tonePaused, "takes no new pods"}
	}
	return out
}

func meterOf(used, total int64, say func(int64) string) meter {
	m := meter{Used: say(used), Total: say(total)}
	if total > 0 {
		m.Percent = min(100, used*100/total)
	}
	return m
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
