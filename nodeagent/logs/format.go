package logs

import (
	"bytes"
	"time"
)

// pieceLimit is the longest piece of a line in a log, in bytes; a longer line
// is written as several pieces, of which all but the last carry the tag P
// (the container runtime interface's log format).
const pieceLimit = 16 << 10

// timeFormat is RFC 3339 with all nine digits, so that lines have one width.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// appendLines adds raw's complete lines to dst in the log's format and returns
// how many bytes of raw they were. With end, a last line without a newline
// counts as complete.
func appendLines(dst []byte, stream string, at time.Time, raw []byte, end bool) ([]byte, int) {
	used := 0
	for used < len(raw) {
		rest := raw[used:]
		i := bytes.IndexByte(rest, '\n')
		switch {
		case i >= 0 && i <= pieceLimit:
			dst = appendPiece(dst, stream, at, 'F', rest[:i])
			used += i + 1
		case i > pieceLimit || len(rest) > pieceLimit:
			dst = appendPiece(dst, stream, at, 'P', rest[:pieceLimit])
			used += pieceLimit
		case end:
			dst = appendPiece(dst, stream, at, 'F', rest)
			used += len(rest)
		default:
			return dst, used
		}
	}
	return dst, used
}

func appendPiece(dst []byte, stream string, at time.Time, tag byte, text []byte) []byte {
	dst = at.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, ' ')
	dst = append(dst, stream...)
	dst = append(dst, ' ', tag, ' ')
	dst = append(dst, text...)
	return append(dst, '\n')
}

// piece is a line of a log file.
type piece struct {
	at      time.Time
	stamp   []byte
	partial bool
	text    []byte
}

// parsePiece reads a line of a log file, without its newline.
func parsePiece(line []byte) (piece, bool) {
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return piece{}, false
	}
	_, rest, ok = bytes.Cut(rest, []byte{' '})
	if !ok || len(rest) < 2 {
		return piece{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return piece{}, false
	}
	return piece{at: at, stamp: stamp, partial: rest[0] == 'P', text: rest[2:]}, true
}
