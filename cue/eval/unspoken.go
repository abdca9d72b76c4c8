package eval

import "strings"

// lacking are the beginnings of messages about a value that is not there yet.
func lacking() []string {
	return []string{
		"has no value yet", "missing", "undefined field", "this condition has no value", "the name of this field has no value",
		"cannot range over", "incomplete", "invalid interpolation", "unresolved disjunction", "non-concrete value",
		"key value of dynamic field", "cannot reference optional field", "cannot use", "invalid operand",
	}
}

// lacks reports whether a message is about a value that is not there yet.
func lacks(message string) bool {
	for _, prefix := range lacking() {
		if strings.HasPrefix(message, prefix) {
			return true
		}
	}
	return strings.Contains(message, "non-concrete") || strings.Contains(message, "incomplete")
}

// spoken are the messages that may be shown of a package with values that nobody
// may see: what follows these words may hold one, also changed.
func spoken() []string {
	return append(lacking(), "conflicting values", "invalid value", "unknown field", "structural cycle", "there is no function",
		"empty disjunction", "cannot call", "number of list items", "incompatible list lengths", "out of range", "error in call to")
}

// unspoken is the part of a message that may be shown of such a package.
func unspoken(message string) string {
	const why = "; what exactly may hold a value of an encrypted file, and is left out"
	if strings.HasPrefix(message, "reference ") && (strings.Contains(message, " not found;") || strings.HasSuffix(message, " not found")) {
		return message // names what stands in the file
	}
	if message == missingValue || strings.HasPrefix(message, "unknown field") {
		return message
	}
	if strings.HasPrefix(message, "the embedded file") {
		return "the embedded file cannot be read" + why
	}
	for _, words := range spoken() {
		if strings.HasPrefix(message, words) {
			return words + why
		}
	}
	return "something is wrong here" + why
}
