package controllers

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"berth.dev/berth/engine/enginetest"
	"berth.dev/berth/engine/live"
)

// BenchmarkUnchanged is a reconcile of an object with 10 Pods that is as it
// should be: nothing is written, and next to nothing is allocated.
func BenchmarkUnchanged(b *testing.B) {
	key := types.NamespacedName{Namespace: "default", Name: "o"}
	labels := map[string]string{"app": "o"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	meta := metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	n := int32(10)
	for name, run := range map[string]func(*stage) (func(context.Context, types.NamespacedName) error, error){
		"ReplicaSet": func(s *stage) (func(context.Context, types.NamespacedName) error, error) {
			c := newReplicaSets(s.begin())
			s.Cleanup(c.loop.queue.ShutDown)
			return c.reconcile, s.r.Create(context.Background(), &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: selector, Template: template}})
		},
		"StatefulSet": func(s *stage) (func(context.Context, types.NamespacedName) error, error) {
			c := newStatefulSets(s.begin())
			s.Cleanup(c.loop.queue.ShutDown)
			return c.reconcile, s.r.Create(context.Background(), &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
				Replicas: &n, Selector: selector, Template: template, PodManagementPolicy: appsv1.ParallelPodManagement,
			}})
		},
		"Job": func(s *stage) (func(context.Context, types.NamespacedName) error, error) {
			c := newJobs(s.begin())
			s.Cleanup(c.loop.queue.ShutDown)
			s.Cleanup(c.orphans.queue.ShutDown)
			job := &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Parallelism: &n, Completions: &n, Template: template}}
			job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
			return c.reconcile, s.r.Create(context.Background(), job)
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := newStage(b)
			reconcile, err := run(s)
			if err != nil {
				b.Fatal(err)
			}
			s.step = func() {
				if err := reconcile(b.Context(), key); err != nil {
					b.Log(err)
				}
			}
			s.settle()
			for _, p := range s.pods() {
				if err := s.r.Bind(b.Context(), types.NamespacedName{Namespace: p.Namespace, Name: p.Name}, p.UID, "n1"); err != nil {
					b.Fatal(err)
				}
			}
			for _, p := range s.pods() {
				s.run(p)
			}
			s.settle()
			if len(s.pods()) != int(n) {
				b.Fatal(fmt.Sprint(len(s.pods())), " pods")
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := reconcile(b.Context(), key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkThousandReplicas is a Deployment that is scaled from 1 to 1,000, from
// the write to the last Pod in the store. Scaling down again would need nodes.
func BenchmarkThousandReplicas(b *testing.B) {
	r := enginetest.Resources(b)
	enginetest.AddNode(b, r, "n1", "640", "640Gi")
	views := live.New()
	enginetest.Go(b, New(Options{Resources: r, Live: views, Clock: clock.RealClock{}, Log: enginetest.Log(b)}).Run)
	enginetest.Go(b, func(ctx context.Context) error { return views.Run(ctx, r) })
	labels := map[string]string{"app": "o"}
	n := int32(1)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "o"}, Spec: appsv1.DeploymentSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}
	if err := r.Create(b.Context(), d); err != nil {
		b.Fatal(err)
	}
	scale := func(to int32) time.Duration {
		began := time.Now()
		for {
			var now appsv1.Deployment
			if err := r.Get(b.Context(), types.NamespacedName{Namespace: "default", Name: "o"}, &now); err != nil {
				b.Fatal(err)
			}
			now.Spec.Replicas = &to
			if r.Update(b.Context(), &now) == nil {
				break
			}
		}
		for {
			if len(views.Pods.InNamespace("default")) == int(to) {
				return time.Since(began)
			}
			time.Sleep(time.Millisecond)
		}
	}
	enginetest.Eventually(b, 10*time.Second, func() string {
		if len(views.Pods.InNamespace("default")) != 1 {
			return "no pod yet"
		}
		return ""
	})
	// Once: nobody is there to end the Pods again.
	b.ReportMetric(float64(scale(1000).Milliseconds()), "ms/1-to-1000")
}

// BenchmarkEndpoints is one of 1,000 Services with 10 Pods each in a namespace: an
// event of a Pod that changes nothing of it, and a reconcile of a Service that is as
// it should be.
func BenchmarkEndpoints(b *testing.B) {
	s := newStage(b)
	e := newEndpoints(s.begin())
	s.Cleanup(e.loop.queue.ShutDown)
	for i := range 1000 {
		name := fmt.Sprintf("app-%d", i)
		labels := map[string]string{"app": name, "part-of": "shop"}
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		service.Spec.Selector = map[string]string{"app": name}
		service.Spec.Ports = []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP}}
		if err := s.r.Create(b.Context(), service); err != nil {
			b.Fatal(err)
		}
		for j := range 10 {
			p := namedPod(fmt.Sprintf("%s-%d", name, j), func(p *corev1.Pod) { p.Labels, p.Namespace = labels, "default" })
			p.UID, p.Status.PodIP = types.UID(p.Name), fmt.Sprintf("10.42.%d.%d", i/25, i%25*10+j)
			s.views.Pods.Set(p)
		}
	}
	look(s, s.views.Services, &corev1.ServiceList{})
	for s.take(e.loop) {
	}
	look(s, s.views.EndpointSlices, &discoveryv1.EndpointSliceList{})
	key := types.NamespacedName{Namespace: "default", Name: "app-500"}
	pod, _ := s.views.Pods.Get(types.NamespacedName{Namespace: "default", Name: "app-500-3"})
	b.Run("event", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.podChanged(pod)
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := e.reconcile(b.Context(), key); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkClaimEvent is an event of one claim, and a volume that is taken while
// another gets free, while 1,000 Pods wait that have a claim each and 1,000 nodes
// have a volume each: until all is decided that follows from it.
func BenchmarkClaimEvent(b *testing.B) {
	for _, c := range claimsThatWait {
		w := newWaitingPods(b, 1000, c.provisioner, c.mode)
		b.Run(c.name+"/claim", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.claimEvent()
			}
		})
		b.Run(c.name+"/volume", func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				before, taken := w.volumes[i%1000], w.volumes[(i+1)%1000].DeepCopy()
				taken.Spec.ClaimRef = &corev1.ObjectReference{UID: "another"}
				w.views.Volumes.Set(before)
				w.views.Volumes.Set(taken)
				w.decideAll()
			}
		})
	}
}
