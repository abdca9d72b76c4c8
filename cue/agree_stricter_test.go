package cue_test

// stricterThanKubernetes lists the cases in which Berth refuses a document that
// Kubernetes decodes, each with the reason. Decoding knows the types only; a
// server would refuse most of these a step later, when it validates.
var stricterThanKubernetes = map[string]string{
	// Validation: the values of fields.
	"addresses":         "an IP address or None",
	"autoscaler_bounds": "at least one replica",
	"labels":            "keys and values of labels",
	"names":             "names",
	"names_json":        "names",
	"names_cronjob":     "the length of a CronJob's name",
	"overflow":          "how long a token may hold",
	"quantities_huge":   "an exponent that no quantity has",
	"quantities_more":   "a negative quantity",
	"bom_places":        "names",
	"broken_middle":     "names",
	"lists_nested":      "names",
	"percentages":       "a whole number or a percentage",
	"port_names":        "one port of a name in a container",
	"schedules":         "a cron schedule",
	"service_kinds":     "one of the fixed words",

	// Validation: fields that must be given.
	"all_kinds_missing": "required fields",
	"missing":           "required fields",
	"unknown_kinds":     "required fields",
	"nulls":             "null is no item, and no value of a required field",
	"nulls_json":        "null is no item",

	// Validation: whole objects.
	"cluster_scope":        "a kind without a namespace",
	"configmap_too_large":  "the size of the data",
	"container_ports":      "ports that a probe names",
	"ports_twice":          "ports of one number or name",
	"requests_over_limits": "requests above limits",
	"restart_policies":     "the restart policy of a kind",
	"selectors":            "a selector that does not match its template",

	// Several objects: what one of them needs of another.
	"refs_wrong": "node ports, names of ports and keys",

	// What Kubernetes would take, and Berth does not carry out.
	"not_carried_out": "fields that Berth cannot do without",

	// What Kubernetes reads as something else than what is written.
	"yaml_half_manifest": "a document without kind beside others: kubectl stops there too",
	"empty_documents":    "a document that is no object beside others: kubectl stops there too",
	"lists_half":         "a List without its apiVersion",
	"separators_odd":     "what follows ... is dropped by Kubernetes in silence",
	"yaml_anchor_text":   "an anchor or a tag in the place of a text is read as no text at all",
}
