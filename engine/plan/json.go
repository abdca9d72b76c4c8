package plan

import "encoding/json"

// MarshalJSON has every step, with its object and place.
func (p Plan) MarshalJSON() ([]byte, error) {
	type step struct {
		Action     Action   `json:"action"`
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Namespace  string   `json:"namespace,omitempty"`
		Name       string   `json:"name"`
		Origin     string   `json:"origin,omitempty"`
		Why        string   `json:"why,omitempty"`
		Fields     []Field  `json:"fields,omitempty"`
		Effects    []string `json:"effects,omitempty"`
	}
	steps := []step{}
	for _, s := range p.Steps {
		if s.Action == Touch {
			continue
		}
		out := step{
			Action: s.Action, APIVersion: s.Key.GroupVersion().String(), Kind: s.Key.Kind,
			Namespace: s.Key.Namespace, Name: s.Key.Name, Why: s.Why, Fields: s.Fields, Effects: s.Effects,
		}
		if s.Origin.Path != "" {
			out.Origin = s.Origin.String()
		}
		steps = append(steps, out)
	}
	return json.Marshal(map[string]any{
		"source": p.Source, "commit": p.Commit, "summary": p.Summary(), "unchanged": p.Unchanged, "steps": steps, "hooks": append([]Hook{}, p.Hooks...),
	})
}
