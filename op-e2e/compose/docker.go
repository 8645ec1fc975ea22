package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// docker runs docker and docker compose in a devnet's directory.
type docker struct {
	dir     string
	project string
	compose []string  // compose v2 is a command of docker, 1.29 a program
	out     io.Writer // what compose prints
}

// ErrNoDocker is what is wrapped when there is no docker to run containers with.
var ErrNoDocker = errors.New("no docker")

// stopTime is how long a command may take to end after its context has.
const stopTime = 10 * time.Second

// newDocker finds docker and compose, and asks the daemon whether it is there.
func newDocker(ctx context.Context, dir, project string, out io.Writer) (*docker, error) {
	d := &docker{dir: dir, project: project, out: out}
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, fmt.Errorf("%w: the docker command is not installed", ErrNoDocker)
	}
	if _, err := d.run(ctx, nil, "docker", "version", "--format", "{{.Server.Version}}"); err != nil {
		return nil, fmt.Errorf("%w daemon: %w", ErrNoDocker, err)
	}
	switch {
	case exec.Command("docker", "compose", "version").Run() == nil:
		d.compose = []string{"docker", "compose"}
	case exec.Command("docker-compose", "version").Run() == nil:
		d.compose = []string{"docker-compose"}
	default:
		return nil, fmt.Errorf("%w compose: neither `docker compose` nor docker-compose is installed", ErrNoDocker)
	}
	return d, nil
}

// run runs a command in the devnet's directory and returns what it prints. Its errors go
// into the error, and to progress if there is one.
func (d *docker) run(ctx context.Context, progress io.Writer, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	// An interrupt, so that compose can tell what it was doing.
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = stopTime
	if info, err := os.Stat(d.dir); err == nil && info.IsDir() {
		c.Dir = d.dir // where .env and docker-compose.yml are
	}
	// docker-compose 1.29 gives a daemon up after a minute, which is little for a machine that
	// does much else; ctx is the bound here.
	c.Env = append([]string{"COMPOSE_HTTP_TIMEOUT=600"}, os.Environ()...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if progress != nil {
		c.Stderr = io.MultiWriter(&stderr, progress)
	}
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, lastLines(stderr.String(), 6))
	}
	return stdout.String(), nil
}

// up and its like run a compose command.
func (d *docker) composeRun(ctx context.Context, args ...string) error {
	all := append(append([]string{}, d.compose...), args...)
	_, err := d.run(ctx, d.out, all[0], all[1:]...)
	return err
}

// attach runs a compose command on this process's own output, until it ends or ctx does.
func (d *docker) attach(ctx context.Context, out io.Writer, args ...string) error {
	all := append(append([]string{}, d.compose...), args...)
	c := exec.CommandContext(ctx, all[0], all[1:]...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = stopTime
	c.Dir, c.Stdout, c.Stderr = d.dir, out, os.Stderr
	if err := c.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", strings.Join(all, " "), err)
	}
	return nil
}

// container is one of the project's.
type container struct {
	Service string
	State   string // running, exited, …
	Status  string // for people: "Up 3 minutes (healthy)"
}

// Healthy says whether it runs and answers; Done whether it had one thing to do, and did it.
func (c *container) Healthy() bool {
	return c.State == "running" && (!strings.Contains(c.Status, "(") || strings.Contains(c.Status, "(healthy)"))
}
func (c *container) Done() bool { return strings.HasPrefix(c.Status, "Exited (0)") }

// containers are the project's, by service, those that do not run too.
func (d *docker) containers(ctx context.Context) ([]container, error) {
	text, err := d.run(ctx, nil, "docker", "ps", "--all", "--filter", "label=com.docker.compose.project="+d.project,
		"--format", "{{.Label \"com.docker.compose.service\"}}\t{{.State}}\t{{.Status}}")
	if err != nil {
		return nil, err
	}
	var out []container
	for line := range strings.Lines(text) {
		parts := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(parts) == 3 {
			out = append(out, container{parts[0], parts[1], parts[2]})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Service < out[j].Service })
	return out, nil
}

// volumes are the project's.
func (d *docker) volumes(ctx context.Context) ([]string, error) {
	text, err := d.run(ctx, nil, "docker", "volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project="+d.project)
	return strings.Fields(text), err
}

// remove removes all of the project, by its label: it needs no files.
func (d *docker) remove(ctx context.Context, volumes bool) error {
	filter := "label=com.docker.compose.project=" + d.project
	text, err := d.run(ctx, nil, "docker", "ps", "--all", "--quiet", "--filter", filter)
	if err != nil {
		return err
	}
	if ids := strings.Fields(text); len(ids) > 0 {
		if _, err := d.run(ctx, nil, "docker", append([]string{"rm", "--force"}, ids...)...); err != nil {
			return err
		}
	}
	if text, err = d.run(ctx, nil, "docker", "network", "ls", "--quiet", "--filter", filter); err != nil {
		return err
	}
	if ids := strings.Fields(text); len(ids) > 0 {
		if _, err := d.run(ctx, nil, "docker", append([]string{"network", "rm"}, ids...)...); err != nil {
			return err
		}
	}
	if !volumes {
		return nil
	}
	names, err := d.volumes(ctx)
	if err != nil || len(names) == 0 {
		return err
	}
	_, err = d.run(ctx, nil, "docker", append([]string{"volume", "rm"}, names...)...)
	return err
}

// hasImages says which image is missing.
func (d *docker) hasImages(ctx context.Context, tag string) error {
	for _, name := range []string{"devnet", "op-node", "op-geth", "op-batcher", "op-proposer"} {
		ref := "op-shared-sequencer/" + name + ":" + tag
		if _, err := d.run(ctx, nil, "docker", "image", "inspect", "--format", "{{.Id}}", ref); err != nil {
			if ctx.Err() != nil {
				return err
			}
			return fmt.Errorf("there is no image %s: make images makes it", ref)
		}
	}
	return nil
}

// lastLines keeps the end of what a program printed, in one line.
func lastLines(s string, n int) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}

// absolute: commands run in the directory, whatever this process works in.
func absolute(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("directory of the devnet: %w", err)
	}
	return dir, nil
}
