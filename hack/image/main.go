// Command image writes an OCI archive out of files on this machine, without a
// registry and without a daemon:
//
//	go run ./hack/image -name berth.dev/shop:1 -o shop.tar -entrypoint /bin/front front=/bin/front
//
// Each argument is FILE=/path/in/image; every file becomes mode 0755. The same
// input gives the same bytes.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	spec := imageSpec{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	flags.StringVar(&spec.Name, "name", "", "the image's name and tag, such as berth.dev/shop:1")
	out := flags.String("o", "", "the archive to write")
	entrypoint := flags.String("entrypoint", "", "the program and its first arguments, separated by spaces")
	cmd := flags.String("cmd", "", "the arguments that a container may replace, separated by spaces")
	flags.StringVar(&spec.User, "user", "", "the user, as in a Dockerfile")
	flags.StringVar(&spec.WorkingDir, "workdir", "", "the working directory")
	flags.StringVar(&spec.StopSignal, "stop-signal", "", "the signal that asks the program to end")
	env := flags.String("env", "", "further variables, NAME=VALUE separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if spec.Name == "" || *out == "" || flags.NArg() == 0 {
		return fmt.Errorf("-name, -o and at least one FILE=/path are needed")
	}
	spec.Entrypoint, spec.Cmd = strings.Fields(*entrypoint), strings.Fields(*cmd)
	if *env != "" {
		spec.Env = append(spec.Env, strings.Split(*env, ",")...)
	}
	for _, arg := range flags.Args() {
		i := strings.LastIndex(arg, "=/") // a file's own name may hold an equals sign
		if i < 1 {
			return fmt.Errorf("%q is not FILE=/path/in/image", arg)
		}
		spec.Files = append(spec.Files, file{From: arg[:i], To: arg[i+1:]})
	}
	return write(spec, *out)
}
