package ha

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

func resources(cpu, memory, pods string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse(pods),
	}
}

// kubelet stands in for an agent: it takes Pods to Ready and removes those that
// are being deleted. It also records how many there were of each owner.
type kubelet struct {
	client *kubernetes.Clientset
	lister cache.SharedIndexInformer

	mu sync.Mutex
	// ever are all Pods that were seen, by UID.
	ever map[types.UID]string
	// most is the largest number that existed at a time, those being deleted left out.
	live map[types.UID]bool
	most int
}

func runKubelet(t testing.TB, c *kubernetes.Clientset) *kubelet {
	t.Helper()
	factory := informers.NewSharedInformerFactory(c, 0)
	k := &kubelet{client: c, lister: factory.Core().V1().Pods().Informer(), ever: map[types.UID]string{}, live: map[types.UID]bool{}}
	_, err := k.lister.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.see(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { k.see(o.(*corev1.Pod)) },
		DeleteFunc: k.gone,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			k.pass(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); factory.Shutdown() })
	return k
}

func (k *kubelet) see(p *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ever[p.UID] = p.Name
	if p.DeletionTimestamp != nil {
		delete(k.live, p.UID)
	} else {
		k.live[p.UID] = true
	}
	k.most = max(k.most, len(k.live))
}

func (k *kubelet) gone(o any) {
	if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.live, o.(*corev1.Pod).UID)
}

// counts are how many Pods there were in all, and at most at a time.
func (k *kubelet) counts() (ever, most int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.ever), k.most
}

// pass moves each Pod a step. What fails is tried again in the next pass.
func (k *kubelet) pass(ctx context.Context) {
	var wg sync.WaitGroup
	for _, o := range k.lister.GetStore().List() {
		p := o.(*corev1.Pod)
		switch {
		case p.DeletionTimestamp != nil:
			wg.Go(func() {
				zero := int64(0)
				_ = k.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.UID}})
			})
		case p.Spec.NodeName != "" && p.Status.Phase != corev1.PodRunning:
			wg.Go(func() { k.run(ctx, p.DeepCopy()) })
		}
	}
	wg.Wait()
}

func (k *kubelet) run(ctx context.Context, p *corev1.Pod) {
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
	_, _ = k.client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{})
}

// deployment of so many Pods.
func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	d.Spec.Replicas = &replicas
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	d.Spec.Template.Labels = labels
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "image:1"}}
	return d
}

// change changes a Deployment, whatever comes between, and returns the version
// that was acknowledged.
func change(ctx context.Context, c *kubernetes.Clientset, name string, edit func(*appsv1.Deployment)) (*appsv1.Deployment, error) {
	for end := time.Now().Add(wait); ; {
		d, err := c.AppsV1().Deployments("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			edit(d)
			d, err = c.AppsV1().Deployments("default").Update(ctx, d, metav1.UpdateOptions{})
		}
		if err == nil || apierrors.IsInvalid(err) || time.Now().After(end) {
			return d, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// rolledOut waits until a Deployment is as its last version says.
func rolledOut(t testing.TB, c *kubernetes.Clientset, name string) {
	t.Helper()
	eventually(t, name+" is rolled out", func() error {
		d, err := c.AppsV1().Deployments("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		want, s := *d.Spec.Replicas, d.Status
		if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != want || s.ReadyReplicas != want || s.Replicas != want {
			return fmt.Errorf("want %d of generation %d: %+v", want, d.Generation, s)
		}
		return nil
	})
}
