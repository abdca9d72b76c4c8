package upstream

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds of a quantity, wider than any that means something: Kubernetes caps
// them at 2^63, and counts in thousand-millionths.
const (
	minQuantity = 1e-30
	maxQuantity = 1e30
)

// quantities finds quantities that Kubernetes' own validation would compare for
// ever: one like 1e99999999999 is read, and has millions of digits.
func quantities(v reflect.Value, at *field.Path) field.ErrorList {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return quantities(v.Elem(), at)
	case reflect.Slice:
		if !holdsQuantities(v.Type().Elem()) {
			return nil
		}
		var errs field.ErrorList
		for i := range v.Len() {
			errs = append(errs, quantities(v.Index(i), at.Index(i))...)
		}
		return errs
	case reflect.Map:
		if v.Type().Elem() != reflect.TypeFor[resource.Quantity]() {
			return nil
		}
		var errs field.ErrorList
		for _, key := range v.MapKeys() {
			errs = append(errs, quantities(v.MapIndex(key), at.Key(key.String()))...)
		}
		return errs
	case reflect.Struct:
		return quantitiesOf(v, at)
	}
	return nil
}

func quantitiesOf(v reflect.Value, at *field.Path) field.ErrorList {
	if q, ok := v.Interface().(resource.Quantity); ok {
		if f := math.Abs(q.AsApproximateFloat64()); q.Sign() == 0 || f > minQuantity && f < maxQuantity {
			return nil
		}
		return field.ErrorList{field.Invalid(at, "", fmt.Sprintf("must be 0, or from %.0e to %.0e", minQuantity, maxQuantity))}
	}
	if !holdsQuantities(v.Type()) {
		return nil
	}
	var errs field.ErrorList
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if v.Field(i).IsZero() || !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "" && f.Anonymous:
			errs = append(errs, quantities(v.Field(i), at)...)
		case name != "" && name != "-" && name != "status":
			errs = append(errs, quantities(v.Field(i), at.Child(name))...)
		}
	}
	return errs
}

// holdsQuantities leaves out the types of other packages, times for one.
func holdsQuantities(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct && (strings.HasPrefix(t.PkgPath(), "k8s.io/api/") || t == reflect.TypeFor[resource.Quantity]())
}
