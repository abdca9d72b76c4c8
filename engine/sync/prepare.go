package sync

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"berth.dev/berth/api/client"
	"berth.dev/berth/api/manifest"
	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/plan"
	"berth.dev/berth/engine/resources"
)

// kept are annotations that others than the user write on objects of a Source.
func kept() []string {
	return append(v1alpha1.AskedAnnotations(), "deployment.kubernetes.io/revision", v1alpha1.AnnotationRevision, v1alpha1.AnnotationAdopted, v1alpha1.AnnotationScheduleChanged)
}

// preparation turns the manifests of a revision into what a plan compares.
type preparation struct {
	engine *Engine
	source *v1alpha1.Source
	commit string
	// limits are the Source and those that it comes out of.
	limits []*v1alpha1.Source
	// namespaces that the revision itself declares.
	namespaces map[string]bool
	// scaled are the objects whose replicas an autoscaler has.
	scaled map[plan.Key]bool

	// before are the objects that were found to be as their manifests say, steady
	// those that are so now.
	before, steady map[plan.Key]steadyObject

	wanted      []plan.Desired
	hooks       []hook
	diagnostics []v1alpha1.Diagnostic
	// finished are Jobs that have run and were removed when their time was over.
	finished []types.NamespacedName
	// waits says what must be gone before the revision can be applied.
	waits string
}

func (e *Engine) preparation(src *v1alpha1.Source, commit string) *preparation {
	return &preparation{engine: e, source: src, commit: commit, limits: e.limits(src), namespaces: map[string]bool{},
		before: e.steady.of(src.Name), steady: map[plan.Key]steadyObject{}}
}

func (e *Engine) prepare(ctx context.Context, src *v1alpha1.Source, commit string, set manifest.Set) (*preparation, error) {
	p := e.preparation(src, commit)
	if parent := e.orphaned(p.limits); parent != "" {
		p.diagnostics = append(p.diagnostics, v1alpha1.Diagnostic{
			Severity: v1alpha1.SeverityError, Object: "Source/" + src.Name,
			Message: fmt.Sprintf("comes out of Source %s, which is gone, so it is not known what it may touch; delete this Source, or take the label %s off it: then its own limits hold alone", parent, v1alpha1.LabelSource),
		})
		return p, nil
	}
	if above := unbounded(p.limits); above != "" {
		p.diagnostics = append(p.diagnostics, v1alpha1.Diagnostic{
			Severity: v1alpha1.SeverityError, Object: "Source/" + src.Name,
			Message: fmt.Sprintf("comes out of Source %s over %d others, and Sources come out of Sources %d deep at most; hold one of those on the way in a Source higher up", above, maxDepth-1, maxDepth),
		})
		return p, nil
	}
	if p.diagnostics = beyond(src, p.limits[1:]); len(p.diagnostics) > 0 {
		return p, nil
	}
	for _, m := range set.Manifests {
		if m.Object.GetKind() == "Namespace" {
			p.namespaces[m.Object.GetName()] = true
		}
	}
	p.findScaled(set)
	for _, m := range set.Manifests {
		if err := p.add(ctx, m); err != nil {
			return nil, err
		}
	}
	e.steady.keep(src.Name, p.steady)
	p.diagnostics = append(p.diagnostics, p.cycles()...)
	return p, nil
}

// add prepares one manifest; what is wrong with it becomes a diagnostic.
func (p *preparation) add(ctx context.Context, m manifest.Manifest) error {
	obj, row, ok := p.object(m)
	if !ok {
		return nil
	}
	if !p.allowed(m, row, obj) || !p.grants(m, obj) {
		return nil
	}
	if there, err := p.namespaceExists(ctx, m, row, obj); !there || err != nil {
		return err
	}
	if hookOf(obj) != "" {
		p.hook(m, obj)
		return nil
	}
	live := row.New()
	err := p.engine.Resources.Get(ctx, client.Key(obj), live)
	if apierrors.IsNotFound(err) {
		live = nil
	} else if err != nil {
		return err
	}
	if p.elsewhere(m, obj, live) || !p.ownable(m, live) || !p.child(m, obj, live) {
		return nil
	}
	wave, ok := p.wave(m, obj)
	if !ok {
		return nil
	}
	key := plan.KeyOf(row.GroupVersionKind, obj)
	as, known := p.engine.steady.describe(p.source, m, live, p.scaled[key])
	if known && p.before[key] == as {
		p.want(plan.Desired{Key: key, Object: live, Origin: m.Origin, Live: live, Wave: wave, Same: true}, as)
		return nil
	}
	p.label(m, obj, live)
	if live == nil {
		if done, err := p.ran(ctx, obj); done || err != nil {
			return err
		}
	}
	d := plan.Desired{Key: key, Object: obj, Origin: m.Origin, Live: live, Wave: wave}
	if p.validate(m, &d) {
		d.Same = known && d.Immutable == "" && equality.Semantic.DeepEqual(d.Live, d.Object)
		p.want(d, as)
	}
	return nil
}

// want adds an object that has no fault. One that is the same as the live one is
// remembered as it was described.
func (p *preparation) want(d plan.Desired, as steadyObject) {
	p.wanted = append(p.wanted, d)
	if d.Same {
		p.steady[d.Key] = as
	}
}

// object is a manifest of a kind that can be deployed, in its type.
func (p *preparation) object(m manifest.Manifest) (client.Object, *resources.Resource, bool) {
	row, ok := p.engine.Resources.ByKind(m.Object.GroupVersionKind())
	if !ok || !slices.Contains(Kinds(), row.GroupVersionKind) {
		p.fail(m, "", fmt.Sprintf("kind %s (%s) cannot be deployed from a repository", m.Object.GetKind(), m.Object.GetAPIVersion()))
		return nil, nil, false
	}
	obj, ok := p.typed(m, row)
	return obj, row, ok && p.unforged(m, obj)
}

// wave that an object is written in.
func (p *preparation) wave(m manifest.Manifest, obj client.Object) (int, bool) {
	n, ok := waveOf(obj)
	if !ok {
		p.fail(m, "metadata.annotations["+v1alpha1.AnnotationWave+"]", "is not a whole number, such as \"1\"")
	}
	return n, ok
}

// typed is a manifest as an object of its kind, with its Namespace.
func (p *preparation) typed(m manifest.Manifest, row *resources.Resource) (client.Object, bool) {
	obj := row.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m.Object.Object, obj); err != nil {
		message := err.Error()
		if v1alpha1.Hidden(m.Object) {
			message = "cannot be read as a " + m.Object.GetKind()
		}
		p.fail(m, "", message)
		return nil, false
	}
	obj.SetNamespace(cmp.Or(obj.GetNamespace(), p.source.Spec.TargetNamespace))
	if !row.Namespaced {
		obj.SetNamespace("")
	}
	return obj, true
}

func (p *preparation) fail(m manifest.Manifest, field, message string) {
	p.diagnostics = append(p.diagnostics, v1alpha1.Diagnostic{
		Severity: v1alpha1.SeverityError, Path: m.Origin.Path, Line: int32(m.Origin.Line),
		Object: m.Object.GetKind() + "/" + m.Object.GetName(), Field: field, Message: message,
	})
}

func (p *preparation) warn(m manifest.Manifest, field, message string) {
	p.diagnostics = append(p.diagnostics, v1alpha1.Diagnostic{
		Severity: v1alpha1.SeverityWarning, Path: m.Origin.Path, Line: int32(m.Origin.Line),
		Object: m.Object.GetKind() + "/" + m.Object.GetName(), Field: field, Message: message,
	})
}

// grants checks the role of a ServiceAccount. A role reaches into all Namespaces
// and to all kinds, so a Source that is limited to some cannot give one.
func (p *preparation) grants(m manifest.Manifest, obj client.Object) bool {
	account, ok := obj.(*corev1.ServiceAccount)
	role := obj.GetAnnotations()[v1alpha1.AnnotationRole]
	if !ok || role == "" {
		return true
	}
	path := "metadata.annotations[" + v1alpha1.AnnotationRole + "]"
	if role != v1alpha1.RoleViewer && role != v1alpha1.RoleAdmin {
		p.fail(m, path, fmt.Sprintf("%s is no role; a ServiceAccount can be given %s or %s", quoted(m, role), v1alpha1.RoleViewer, v1alpha1.RoleAdmin))
		return false
	}
	if by := limited(p.limits); by != nil {
		p.fail(m, path, fmt.Sprintf("%s, and a role reaches beyond that; grant it to ServiceAccount %s/%s in a Source without that limit", bounds(by), account.Namespace, account.Name))
		return false
	}
	return true
}

// namespaceExists looks for the Namespace of an object. The view may not have one
// yet that was made together with the Source.
func (p *preparation) namespaceExists(ctx context.Context, m manifest.Manifest, row *resources.Resource, obj client.Object) (bool, error) {
	name := obj.GetNamespace()
	if !row.Namespaced || p.namespaces[name] {
		return true, nil
	}
	ns, ok := p.engine.Live.Namespaces.Get(types.NamespacedName{Name: name})
	if !ok {
		ns = &corev1.Namespace{}
		err := p.engine.Resources.Get(ctx, types.NamespacedName{Name: name}, ns)
		if apierrors.IsNotFound(err) {
			p.fail(m, "metadata.namespace", fmt.Sprintf("namespace %s does not exist; add a Namespace object to the repository", name))
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look for namespace %s: %w", name, err)
		}
	}
	if ns.DeletionTimestamp != nil {
		p.waits = fmt.Sprintf("namespace %s is being deleted", name)
	}
	return true, nil
}

// elsewhere: another Source has the object, and that is as it should be: it was
// handed over, or it is a Namespace, which several may name.
func (p *preparation) elsewhere(m manifest.Manifest, obj, live client.Object) bool {
	if live == nil {
		return false
	}
	owner, ok := resources.Managed(live)
	if !ok || owner == p.source.Name || !p.engine.exists(owner) || live.GetAnnotations()[v1alpha1.AnnotationHandOver] == p.source.Name {
		return false
	}
	if obj.GetAnnotations()[v1alpha1.AnnotationHandOver] == owner {
		return true
	}
	if m.Object.GetKind() != "Namespace" {
		return false
	}
	p.diagnostics = append(p.diagnostics, v1alpha1.Diagnostic{
		Severity: v1alpha1.SeverityWarning, Path: m.Origin.Path, Line: int32(m.Origin.Line), Object: "Namespace/" + obj.GetName(),
		Message: fmt.Sprintf("belongs to Source %s (%s), and stays as it is there", owner, live.GetAnnotations()[v1alpha1.AnnotationOrigin]),
	})
	return true
}

// ownable: nobody else owns the object.
func (p *preparation) ownable(m manifest.Manifest, live client.Object) bool {
	if live == nil {
		return true
	}
	owner, ok := resources.Managed(live)
	comes := live.GetAnnotations()[v1alpha1.AnnotationHandOver] == p.source.Name
	if ok && owner != p.source.Name && p.engine.exists(owner) && !comes {
		p.fail(m, "", fmt.Sprintf("belongs to Source %s (%s); remove it from one of the two, or let it come over with the annotation %s: %s there",
			owner, live.GetAnnotations()[v1alpha1.AnnotationOrigin], v1alpha1.AnnotationHandOver, p.source.Name))
		return false
	}
	if live.GetDeletionTimestamp() != nil {
		p.waits = fmt.Sprintf("%s %s is being deleted", m.Object.GetKind(), live.GetName())
	}
	return true
}

// exists: what a Source that was removed has left behind may be taken over.
func (e *Engine) exists(source string) bool {
	_, ok := e.Live.Sources.Get(types.NamespacedName{Name: source})
	return ok
}

// label notes the Source and the place on the object, and takes over what
// others have written on the live one.
func (p *preparation) label(m manifest.Manifest, obj, live client.Object) {
	l := copied(obj.GetLabels())
	l[v1alpha1.LabelSource] = p.source.Name
	obj.SetLabels(l)
	a := copied(obj.GetAnnotations())
	for _, k := range kept() {
		delete(a, k)
	}
	a[v1alpha1.AnnotationOrigin] = m.Origin.String()
	if live != nil {
		was := live.GetAnnotations()
		for _, k := range kept() {
			if v, ok := was[k]; ok {
				a[k] = v
			}
		}
		if _, owned := resources.Managed(live); !owned {
			a[v1alpha1.AnnotationAdopted] = "true"
		}
		obj.SetFinalizers(live.GetFinalizers())
		obj.SetOwnerReferences(live.GetOwnerReferences())
		obj.SetManagedFields(live.GetManagedFields())
		keepBinding(obj, live)
		resources.KeepBound(obj, live)
		p.keepReplicas(obj, live)
	}
	if resources.Standing(obj) { // Berth's own: it is given back, whoever made it first
		a[v1alpha1.AnnotationAdopted] = "true"
	}
	obj.SetAnnotations(a)
}

// keepBinding takes over the node that the scheduler gave a bare Pod, and what
// the cluster filled in: it is no change of what the repository says.
func keepBinding(obj, live client.Object) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	was := live.(*corev1.Pod)
	if pod.Spec.NodeName == "" {
		pod.Spec.NodeName = was.Spec.NodeName
	}
	resources.KeepAdmitted(pod, was)
}

func copied(m map[string]string) map[string]string {
	out := make(map[string]string, len(m)+3)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// validate checks the object by itself, then as a change of the live one. What
// is right by itself and wrong as a change needs a replacement.
func (p *preparation) validate(m manifest.Manifest, d *plan.Desired) bool {
	r := p.engine.Resources
	fresh := d.Object.DeepCopyObject().(client.Object)
	if pod, ok := fresh.(*corev1.Pod); ok && d.Live != nil && pod.Spec.NodeName == d.Live.(*corev1.Pod).Spec.NodeName {
		pod.Spec.NodeName = "" // a new Pod is scheduled anew
	}
	if errs := r.ValidateCreate(fresh); len(errs) > 0 {
		p.invalid(m, errs)
		return false
	}
	if d.Live == nil {
		d.Object = fresh
		return true
	}
	changed := d.Object
	errs := r.ValidateUpdate(changed, d.Live)
	if len(errs) == 0 {
		return true
	}
	bound := resources.IsBound(d.Live)
	if why, anew := runsAnew(d.Live); !bound && (anew || d.Object.GetAnnotations()[v1alpha1.AnnotationReplace] == v1alpha1.ReplaceAllowed) {
		d.Object, d.Immutable = fresh, errs[0].Field+" cannot be changed in place"+why
		return true
	}
	remedy := fmt.Sprintf("undo the change, give the object another name, or allow a replacement with the annotation %s: %s", v1alpha1.AnnotationReplace, v1alpha1.ReplaceAllowed)
	if bound {
		remedy = "undo the change or give the object another name; it is bound and has data, so it is not replaced: if the data is not needed, remove the object with one commit and add it anew with the next"
	}
	for _, e := range errs {
		p.fail(m, e.Field, fmt.Sprintf("cannot be changed on the live object: %s; %s", detail(e, d.Object, d.Live), remedy))
	}
	return false
}

// runsAnew: a bare Pod and a Job are replaced without asking, for that is the
// only way to change them, and they keep nothing.
func runsAnew(live client.Object) (why string, ok bool) {
	switch live.(type) {
	case *corev1.Pod:
		return "", true
	case *batchv1.Job:
		return ", so the Job runs anew", true
	}
	return "", false
}

// ran: the object is a Job that has run and was removed when its time was over,
// and it would not run anew if it were still there (docs/decisions/jobs.md).
func (p *preparation) ran(ctx context.Context, obj client.Object) (bool, error) {
	job, ok := obj.(*batchv1.Job)
	if !ok {
		return false, nil
	}
	ns, ok := p.engine.Live.Namespaces.Get(types.NamespacedName{Name: job.Namespace})
	if !ok {
		return false, nil
	}
	was, ok, err := p.engine.Resources.Finished(ctx, p.source.Name, ns.UID, job.Name)
	if err != nil {
		return false, fmt.Errorf("look whether job %s has run: %w", job.Name, err)
	}
	if !ok || len(p.engine.Resources.ValidateUpdate(job.DeepCopy(), was)) > 0 {
		return false, nil
	}
	p.finished = append(p.finished, client.Key(job))
	return true, nil
}

// quoted is a value as a message shows it.
func quoted(m manifest.Manifest, value string) string {
	if v1alpha1.Hidden(m.Object) {
		return "what stands here"
	}
	return strconv.Quote(value)
}

func (p *preparation) invalid(m manifest.Manifest, errs field.ErrorList) {
	for _, e := range errs {
		p.fail(m, e.Field, detail(e, m.Object))
	}
}

// detail is what is wrong, without the value when it may be a secret.
func detail(e *field.Error, objects ...metav1.Object) string {
	for _, obj := range objects {
		_, secret := obj.(*corev1.Secret)
		u, untyped := obj.(*unstructured.Unstructured)
		switch {
		case v1alpha1.Hidden(obj): // the detail may quote a value, too
			return strings.ToLower(e.Type.String()) + "; what stands there is out of an encrypted file, and is not shown"
		case secret, untyped && u.GetKind() == "Secret":
			return strings.ToLower(string(e.Type)) + ": " + e.Detail
		}
	}
	return e.ErrorBody()
}

// owned lists the live objects of a Source that its content decides about: not
// the Jobs of its hooks.
func (e *Engine) owned(ctx context.Context, source string) ([]plan.Owned, error) {
	var out []plan.Owned
	for _, gvk := range Kinds() {
		objects, err := e.labelled(ctx, source, gvk)
		if err != nil {
			return nil, err
		}
		for _, obj := range objects {
			if obj.GetDeletionTimestamp() == nil && hookOf(obj) == "" {
				out = append(out, plan.Owned{Key: plan.KeyOf(gvk, obj), Object: obj})
			}
		}
	}
	return out, nil
}

// labelled lists the objects of a kind that a Source has written.
func (e *Engine) labelled(ctx context.Context, source string, gvk schema.GroupVersionKind) ([]client.Object, error) {
	row, ok := e.Resources.ByKind(gvk)
	if !ok {
		return nil, fmt.Errorf("kind %s is not known", gvk)
	}
	list, err := e.Resources.Objects(ctx, row, resources.ListRequest{Labels: labels.SelectorFromSet(labels.Set{v1alpha1.LabelSource: source})})
	if err != nil {
		return nil, fmt.Errorf("list what Source %s owns: %w", source, err)
	}
	return slices.DeleteFunc(list.Objects, func(obj client.Object) bool {
		_, ok := resources.Managed(obj)
		return !ok
	}), nil
}
