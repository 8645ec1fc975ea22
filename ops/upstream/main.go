// Command upstream makes the patched copies of the two upstream modules in
// build/upstream, and writes the patch queues back from edited copies.
//
//	upstream [-repo DIR] apply [NAME]
//	upstream [-repo DIR] verifier DIR
//	upstream [-repo DIR] capture NAME PATCH
//
// It runs outside the workspace (GOWORK=off): the workspace needs its result.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const usage = `usage: upstream [-repo DIR] COMMAND

  apply [NAME]        make build/upstream/{op-geth,optimism}, or one of them, from the pinned modules and the queues
  verifier DIR        make an op-geth in DIR with only the Karst part of its queue
  capture NAME PATCH  write NAME's queue from the edited build/upstream/NAME; new insertions go to PATCH
`

var errUsage = errors.New("wrong usage")

func main() {
	repo := flag.String("repo", ".", "root of the repository")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if err := run(*repo, flag.Args()); err != nil {
		if errors.Is(err, errUsage) {
			flag.Usage()
		}
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "upstream: "+format+"\n", args...)
}

func run(repo string, args []string) error {
	repo, err := filepath.Abs(repo)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	build := filepath.Join(repo, "build", "upstream")
	switch {
	case args[0] == "apply" && len(args) <= 2:
		chosen := queues
		if len(args) == 2 {
			q := queueByName(args[1])
			if q == nil {
				return unknownQueue(args[1])
			}
			chosen = []Queue{*q}
		}
		dirs, sums, err := locate(repo, say)
		if err != nil {
			return err
		}
		for _, q := range chosen {
			start := time.Now()
			changed, err := q.apply(repo, filepath.Join(build, q.Name), dirs, sums, everything)
			if err != nil {
				return err
			}
			if changed {
				say("build/upstream/%s made in %.1fs", q.Name, time.Since(start).Seconds())
			} else {
				say("build/upstream/%s is up to date", q.Name)
			}
		}
		return nil
	case args[0] == "verifier" && len(args) == 2:
		dirs, sums, err := locate(repo, say)
		if err != nil {
			return err
		}
		_, err = queueByName("op-geth").apply(repo, args[1], dirs, sums, karstOnly)
		return err
	case args[0] == "capture" && len(args) == 3:
		q := queueByName(args[1])
		if q == nil {
			return unknownQueue(args[1])
		}
		dirs, sums, err := locate(repo, say)
		if err != nil {
			return err
		}
		return q.capture(repo, filepath.Join(build, q.Name), dirs, sums, args[2])
	}
	return fmt.Errorf("%w: unknown command %q", errUsage, args)
}

func queueByName(name string) *Queue {
	for i := range queues {
		if queues[i].Name == name {
			return &queues[i]
		}
	}
	return nil
}

func unknownQueue(name string) error {
	return fmt.Errorf("no queue %q: there are op-geth and optimism", name)
}
