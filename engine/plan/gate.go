package plan

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/intstr"
)

// Gate says why a plan must wait for approval, or "" when it need not: it
// would delete everything that the Source owns, or nothing is wanted any more but
// what it keeps, or it would delete more than limit, a number or a percentage of
// what the Source owns.
func (p Plan) Gate(limit intstr.IntOrString) string {
	deletions := p.Count(Delete)
	if deletions == 0 {
		return ""
	}
	if deletions == p.Owned {
		return fmt.Sprintf("would delete all %d objects of the Source", deletions)
	}
	if len(p.Waves) == 0 && p.Unchanged == 0 {
		return fmt.Sprintf("would delete %d of %d objects of the Source, and keep the others only because they may not be deleted: the revision holds nothing", deletions, p.Owned)
	}
	allowed, err := intstr.GetScaledValueFromIntOrPercent(&limit, p.Owned, true)
	if err != nil || deletions > allowed {
		return fmt.Sprintf("would delete %d of %d objects, more than spec.maxPrune (%s) allows", deletions, p.Owned, limit.String())
	}
	return ""
}
