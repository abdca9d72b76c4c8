package storage_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"berth.dev/berth/api/v1alpha1"
	"berth.dev/berth/engine/live"
	"berth.dev/berth/engine/storage"
)

func gi(n string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(n)}
}

func claim(name, class string, edit ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	c.Spec.StorageClassName = &class
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = gi("2Gi")
	for _, f := range edit {
		f(c)
	}
	return c
}

func volume(name, class string, edit ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": "fast"}}}
	v.Spec.StorageClassName, v.Spec.Capacity = class, gi("2Gi")
	v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany}
	for _, f := range edit {
		f(v)
	}
	return v
}

func sized(size string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) { v.Spec.Capacity = gi(size) }
}

// forClaim sets a volume aside: for a claim that is there, with a UID.
func forClaim(name, uid string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: name, UID: types.UID(uid)}
	}
}

func onNode(name string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}},
		}}}}
	}
}

func TestUnfit(t *testing.T) {
	block := corev1.PersistentVolumeBlock
	for want, c := range map[string]struct {
		claim  func(*corev1.PersistentVolumeClaim)
		volume func(*corev1.PersistentVolume)
	}{
		"":                            {},
		"is being deleted":            {volume: func(v *corev1.PersistentVolume) { v.DeletionTimestamp = &metav1.Time{} }},
		"is of another storage class": {volume: func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "other" }},
		"is too small":                {volume: sized("2047Mi")},
		"has another volumeMode":      {claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block }},
		"does not offer the access mode ReadWriteMany": {claim: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = append(c.Spec.AccessModes, corev1.ReadWriteMany)
		}},
		"is not selected by the claim": {claim: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "slow"}}
		}},
	} {
		cl, v := claim("c", "now"), volume("v", "now")
		if c.claim != nil {
			c.claim(cl)
		}
		if c.volume != nil {
			c.volume(v)
		}
		if got := storage.Unfit(cl, v); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSmallest(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}}
	large, small, same := volume("large", "now", sized("9Gi")), volume("small", "now", sized("3Gi")), volume("also-small", "now", sized("3Gi"))
	for want, all := range map[string][]*corev1.PersistentVolume{
		"small":      {large, small, volume("tiny", "now", sized("1Gi"))},
		"also-small": {small, large, same},
		"reserved":   {small, volume("reserved", "now", sized("9Gi"), forClaim("c", ""))},
		"had":        {small, volume("had", "now", sized("9Gi"), forClaim("c", "c"))},
		"large":      {large, volume("of-another", "now", forClaim("d", "")), volume("of-one-before", "now", forClaim("c", "before"))},
		"":           {volume("elsewhere", "now", onNode("n2")), volume("other-class", "later")},
	} {
		got := ""
		if pv := storage.Smallest(claim("c", "now"), all, node); pv != nil {
			got = pv.Name
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if pv := storage.Smallest(claim("c", "now"), []*corev1.PersistentVolume{volume("elsewhere", "now", onNode("n2"))}, nil); pv == nil {
		t.Error("without a node, where a volume is does not matter")
	}
}

// TestClaimsOfAPod: what they mean for where it runs, and what it waits for.
func TestClaimsOfAPod(t *testing.T) {
	later := storagev1.VolumeBindingWaitForFirstConsumer
	once := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	names := func(volume string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = volume }
	}
	for name, c := range map[string]struct {
		claim   *corev1.PersistentVolumeClaim
		volumes []*corev1.PersistentVolume
		waits   string
		unbound int
		out     bool // n1 is out of reach
	}{
		"none of the name":      {waits: "not found"},
		"going":                 {claim: claim("c", "now", func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} }), waits: "is being deleted"},
		"lost":                  {claim: claim("c", "now", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost }), waits: "has lost its volume"},
		"not bound":             {claim: claim("c", "now"), waits: "is not bound to a volume yet"},
		"volume not there":      {claim: claim("c", "now", names("v")), waits: "volume v of persistentvolumeclaim \"c\" is not there"},
		"volume of nobody":      {claim: claim("c", "now", names("v")), volumes: []*corev1.PersistentVolume{volume("v", "now")}, waits: "is not bound to volume v, which it names"},
		"volume of another":     {claim: claim("c", "now", names("v")), volumes: []*corev1.PersistentVolume{volume("v", "now", forClaim("d", "d"))}, waits: "is not bound to volume v"},
		"bound":                 {claim: claim("c", "now", names("v")), volumes: []*corev1.PersistentVolume{volume("v", "now", forClaim("c", "c"))}},
		"bound elsewhere":       {claim: claim("c", "now", names("v")), volumes: []*corev1.PersistentVolume{volume("v", "now", forClaim("c", "c"), onNode("n2"))}, out: true},
		"made with the node":    {claim: claim("c", "local"), unbound: 1},
		"nothing free":          {claim: claim("c", "later"), waits: "no free volume of class later is large enough"},
		"free elsewhere":        {claim: claim("c", "later"), volumes: []*corev1.PersistentVolume{volume("v", "later", onNode("n2"))}, unbound: 1, out: true},
		"free here and there":   {claim: claim("c", "later"), volumes: []*corev1.PersistentVolume{volume("v", "later", onNode("n2")), volume("w", "later", onNode("n1"))}, unbound: 1},
		"free everywhere":       {claim: claim("c", "later"), volumes: []*corev1.PersistentVolume{volume("v", "later", onNode("n2")), volume("w", "later")}, unbound: 1},
		"for one pod, and had":  {claim: claim("c", "local", once), waits: "is ReadWriteOncePod, and pod holder has it"},
		"no class of that name": {claim: claim("c", "none"), waits: "is not bound to a volume yet"},
	} {
		t.Run(name, func(t *testing.T) {
			views := live.New()
			views.Classes.Set(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: v1alpha1.LocalProvisioner})
			views.Classes.Set(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "now"}, Provisioner: "kubernetes.io/no-provisioner"})
			views.Classes.Set(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "later"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &later})
			if c.claim != nil {
				views.Claims.Set(c.claim)
			}
			for _, v := range c.volumes {
				views.Volumes.Set(v)
			}
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p"}}
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
			got := storage.NewOffers(views).Of(p, func(claim types.NamespacedName, but types.UID) string {
				if claim.String() != "default/c" || but != "p" {
					t.Errorf("who has %s but %s", claim, but)
				}
				return "holder"
			})
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}}
			if (got.Waits == "") != (c.waits == "") || !strings.Contains(got.Waits, c.waits) || c.waits == "" && len(got.Unbound) != c.unbound || (got.OutOfReach(node) != "") != c.out {
				t.Errorf("waits %q, %d unbound, out of reach %q", got.Waits, len(got.Unbound), got.OutOfReach(node))
			}
		})
	}
}

// TestOffers: claims that ask for the same have one answer, until the volumes change;
// one that a volume was set aside for has its own.
func TestOffers(t *testing.T) {
	later := storagev1.VolumeBindingWaitForFirstConsumer
	views := live.New()
	views.Classes.Set(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "later"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &later})
	inZone := func(v *corev1.PersistentVolume) {
		onNode("n3")(v)
		term := &v.Spec.NodeAffinity.Required.NodeSelectorTerms[0]
		term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpExists})
	}
	for _, v := range []*corev1.PersistentVolume{
		volume("b", "later", onNode("n2")), volume("a", "later", onNode("n1")), volume("a2", "later", onNode("n1")),
		volume("zone", "later", inZone), volume("zone2", "later", inZone),
		volume("small", "later", onNode("n4"), sized("1Gi")), volume("taken", "later", onNode("n5"), forClaim("x", "x")),
		volume("kept", "later", onNode("n6"), forClaim("own", "")),
	} {
		views.Volumes.Set(v)
	}
	for _, name := range []string{"one", "two", "own"} {
		views.Claims.Set(claim(name, "later"))
	}
	views.Claims.Set(claim("less", "later", func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = gi("1Gi") }))
	offers := storage.NewOffers(views)
	reach := func(claim string) *corev1.NodeSelector {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}
		return offers.Of(p, nil).Reaches[0].Nodes
	}
	hosts := func(claim string) string {
		t.Helper()
		terms := reach(claim).NodeSelectorTerms
		if len(terms) != 2 || len(terms[0].MatchExpressions) != 1 || len(terms[1].MatchExpressions) != 2 {
			t.Fatalf("%s: %+v", claim, terms)
		}
		return strings.Join(terms[0].MatchExpressions[0].Values, " ")
	}
	for claim, want := range map[string]string{"one": "n1 n2", "less": "n1 n2 n4", "own": "n1 n2 n6"} {
		if got := hosts(claim); got != want {
			t.Errorf("%s can have a volume on %s, want %s", claim, got, want)
		}
	}
	if reach("one") != reach("two") {
		t.Error("two claims that ask for the same are answered anew")
	}
	views.Volumes.Set(volume("b", "later", onNode("n2"), forClaim("x", "x")))
	offers.Forget()
	if got := hosts("two"); got != "n1" {
		t.Errorf("n2's volume is taken, and offered are those on %s", got)
	}
}
