// Package logs keeps the containers' logs: files in the CRI log format below
// Dir, rotated, and their reading. The shim appends what a container writes to
// two capture files, with the agent or without it; the Collector moves it from
// there to the log, with a time to each line, and gives the space back
// (docs/decisions/container-logs.md). It never blocks a container and knows
// nothing of pods but the names of folders.
package logs
