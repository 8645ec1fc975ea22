package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
)

// Devnet is a directory that Generate made, and the containers that run from it.
type Devnet struct {
	dir    string
	layout *layout
	docker *docker
	out    io.Writer
}

// Open opens the devnet in a directory. Its containers need not run.
func Open(ctx context.Context, dir string, out io.Writer) (*Devnet, error) {
	dir, err := absolute(dir)
	if err != nil {
		return nil, err
	}
	l, err := readLayout(dir)
	if err != nil {
		return nil, err
	}
	d, err := newDocker(ctx, dir, l.Project, out)
	if err != nil {
		return nil, err
	}
	return &Devnet{dir: dir, layout: l, docker: d, out: out}, nil
}

func (d *Devnet) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// Up brings a devnet up, and makes it if there is none in dir. It returns when all operators
// take part and all chains make blocks. A devnet that is there goes on as it is: cfg has to be the one it was made
// with.
func Up(ctx context.Context, dir string, cfg Config, out io.Writer) (*Devnet, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	dir, err := absolute(dir)
	if err != nil {
		return nil, err
	}
	d, err := Open(ctx, dir, out)
	switch {
	case errors.Is(err, errNone):
		if d, err = create(ctx, dir, cfg, out); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if err := d.layout.differs(&cfg); err != nil {
			return nil, err
		}
		containers, err := d.docker.containers(ctx)
		if err != nil {
			return nil, err
		}
		if len(containers) == 0 {
			if err := portsFree(d.layout.published()); err != nil {
				return nil, err
			}
		}
		d.say("a devnet is in %s: it goes on", dir)
	}
	if err := d.docker.hasImages(ctx, d.layout.Tag); err != nil {
		return nil, err
	}
	d.say("starting its containers")
	if err := d.docker.composeRun(ctx, "up", "--detach", "--remove-orphans"); err != nil {
		return nil, err
	}
	return d, d.awaitRunning(ctx)
}

// create makes a devnet where none is.
func create(ctx context.Context, dir string, cfg Config, out io.Writer) (*Devnet, error) {
	dock, err := newDocker(ctx, dir, cfg.Project, out)
	if err != nil {
		return nil, err
	}
	if err := dock.hasImages(ctx, cfg.Tag); err != nil {
		return nil, err
	}
	// Containers of the same name without their files: another directory's, or a lost one's.
	containers, err := dock.containers(ctx)
	if err != nil {
		return nil, err
	}
	if len(containers) > 0 {
		return nil, fmt.Errorf("project %s has containers (%s and others) and no files in %s: bring it down where it was made, or with make devnet-down PROJECT=%s; or choose another PROJECT",
			cfg.Project, containers[0].Service, dir, cfg.Project)
	}
	volumes, err := dock.volumes(ctx)
	if err != nil {
		return nil, err
	}
	if len(volumes) > 0 {
		return nil, fmt.Errorf("project %s has volumes (%s and others) of a devnet whose files are gone: make devnet-down PROJECT=%s removes them", cfg.Project, volumes[0], cfg.Project)
	}
	plan := &layout{Config: cfg}
	for i := range cfg.Operators {
		plan.Members = append(plan.Members, operator{Number: i + 1})
	}
	for i := range cfg.Chains {
		plan.ChainIDs = append(plan.ChainIDs, firstChain+uint64(i))
	}
	if err := portsFree(plan.published()); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "making genesis, keys and docker-compose.yml in %s\n", dir)
	if err := Generate(ctx, dir, cfg); err != nil {
		return nil, err
	}
	return Open(ctx, dir, out)
}

// differs says what a devnet that is there does not have in common with what is asked for.
func (l *layout) differs(cfg *Config) error {
	differ := func(what string, asked, is any) error {
		return fmt.Errorf("a devnet with %s %v is there, not %v: make devnet-down removes it; make devnet-add-operator and devnet-add-chain add to it", what, is, asked)
	}
	switch {
	case cfg.Chains != len(l.ChainIDs):
		return differ("CHAINS =", cfg.Chains, len(l.ChainIDs))
	case cfg.Operators != len(l.Members):
		return differ("OPERATORS =", cfg.Operators, len(l.Members))
	case cfg.PortBase != l.PortBase:
		return differ("PORT_BASE =", cfg.PortBase, l.PortBase)
	case cfg.Project != l.Project:
		return differ("PROJECT =", cfg.Project, l.Project)
	case cfg.Blobs != l.Blobs:
		return differ("blobs =", cfg.Blobs, l.Blobs)
	}
	return nil
}

// awaitRunning waits until all operators take part, and all chains make blocks.
func (d *Devnet) awaitRunning(ctx context.Context) error {
	r := newReach(d.layout)
	defer r.close()
	for _, m := range d.layout.Members {
		if err := r.awaitVoting(ctx, m.Number, true, 0); err != nil {
			return err
		}
	}
	first := d.layout.Members[0].Number
	if err := r.awaitLevel(ctx, first); err != nil {
		return err
	}
	behind, err := r.behind(ctx, first)
	if err != nil {
		return err
	}
	d.say("all operators take part, and all chains make blocks; their heads are %v old", behind)
	return nil
}

// Stop stops the containers; Up goes on with them.
func (d *Devnet) Stop(ctx context.Context) error {
	return d.docker.composeRun(ctx, "stop")
}

// Down removes the containers of a project, its networks, volumes and files. It works with
// what is left, if files or containers are gone already, and is no error if all are.
func Down(ctx context.Context, dir, project string, out io.Writer) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	l, err := readLayout(dir)
	known := err == nil
	if known {
		project = l.Project
	} else if !errors.Is(err, errNone) {
		return err
	}
	d, err := newDocker(ctx, dir, project, out)
	if err != nil {
		return err
	}
	containers, err := d.containers(ctx)
	if err != nil {
		return err
	}
	volumes, err := d.volumes(ctx)
	if err != nil {
		return err
	}
	if !known && len(containers)+len(volumes) == 0 {
		fmt.Fprintf(out, "there is no devnet in %s, and nothing of project %s\n", dir, project)
		return nil
	}
	if err := d.remove(ctx, true); err != nil {
		return err
	}
	if known { // else it is not ours to remove
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "removed %d containers, %d volumes and the files of project %s\n", len(containers), len(volumes), project)
	return nil
}

// Logs prints what services log, all of them if none is named.
func (d *Devnet) Logs(ctx context.Context, follow bool, tail int, services []string) error {
	args := []string{"logs", fmt.Sprintf("--tail=%d", tail)}
	if follow {
		args = append(args, "--follow")
	}
	return d.docker.attach(ctx, d.out, append(args, services...)...)
}

// Describe prints where the devnet is reached, and with which keys.
func (d *Devnet) Describe() error {
	l := d.layout
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	row := func(what string, port int) { fmt.Fprintf(w, "  %s\t%s\n", what, localURL(port)) }
	fmt.Fprintln(d.out, "\n"+Tolerance(l.powers()))
	fmt.Fprintln(d.out, "\nendpoints, on this machine only")
	row("L1", l.l1Port())
	row("L1 beacon API", l.beaconPort())
	for _, m := range l.Members {
		row(fmt.Sprintf("operator %d: sharedseq", m.Number), l.sequencerPort(m.Number))
		row("  op-node: super roots; chains: /901 …", l.nodePort(m.Number))
		row("  op-node: metrics", l.metricsPort(m.Number))
		for i, id := range l.ChainIDs {
			row(fmt.Sprintf("  op-geth of chain %d", id), l.enginePort(m.Number, i))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	keys, err := genesis.DevKeys()
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out, "\nfunded keys, on L1 and every rollup; everybody knows them")
	for i := range 3 {
		key, err := keys.User(i)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "  %s  %x\n", crypto.PubkeyToAddress(key.PublicKey), crypto.FromECDSA(key))
	}
	fmt.Fprintln(d.out, "\nfiles in "+d.dir)
	return nil
}

// askTime bounds what one operator is asked for a status.
const askTime = 3 * time.Second

// Status prints what runs, how the operators take part, and the chains' heads.
func (d *Devnet) Status(ctx context.Context) error {
	containers, err := d.docker.containers(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tSTATE\tSTATUS")
	for _, c := range containers {
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Service, c.State, c.Status)
	}
	if len(containers) == 0 {
		fmt.Fprintln(w, "none\t\tmake devnet-up starts them")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	r := newReach(d.layout)
	defer r.close()
	head := "\nOPERATOR\tPOWER\tVOTES\tLEADS\tHEIGHT\tPEERS"
	for _, id := range d.layout.ChainIDs {
		head += fmt.Sprintf("\tCHAIN %d", id)
	}
	fmt.Fprintln(w, head)
	for _, m := range d.layout.Members {
		fmt.Fprintln(w, d.statusOf(ctx, r, m.Number))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "\n"+d.next(ctx, r))
	return nil
}

// statusOf is an operator's line.
func (d *Devnet) statusOf(ctx context.Context, r *reach, number int) string {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	st, err := r.status(ctx, number)
	if err != nil {
		return fmt.Sprintf("%d\t\tdoes not answer", number)
	}
	yes := map[bool]string{true: "yes", false: "no"}
	line := fmt.Sprintf("%d\t", number)
	if a := st.Agreement; a != nil {
		votes := "yes"
		switch {
		case !a.Running:
			votes = "ended"
		case a.Syncing:
			votes = "no, fetches"
		case a.Power == 0:
			votes = "no, not in the set"
		}
		line += fmt.Sprintf("%d\t%s\t%s\t%d\t%d", uint64(a.Power), votes, yes[st.Leader], uint64(a.Height), uint64(a.Peers))
	} else {
		line += "alone\t\tyes\t\t"
	}
	for _, c := range st.Chains {
		line += fmt.Sprintf("\t#%d, %.0f s old", uint64(c.Head.Number), time.Since(time.Unix(int64(c.Head.Timestamp), 0)).Seconds())
		if !c.Ready {
			line += ", " + c.Reason
		}
	}
	return line
}

// next says who leads next, by the first operator that answers.
func (d *Devnet) next(ctx context.Context, r *reach) string {
	for _, m := range d.layout.Members {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		c, err := r.sequencer(ctx, m.Number)
		if err != nil {
			continue
		}
		turns, err := c.LeaderSchedule(ctx, 8)
		if err != nil {
			continue
		}
		names := map[common.Address]string{{}: "the operator, which is alone"}
		for i := range d.layout.Members {
			if o, err := d.layout.Members[i].record(d.dir); err == nil {
				names[o.Address] = fmt.Sprint(d.layout.Members[i].Number)
			}
		}
		var out []string
		for _, t := range turns {
			out = append(out, names[t.Leader])
		}
		if d.layout.alone() {
			out = slices.Compact(out)
		}
		return "next leaders: " + strings.Join(out, ", ")
	}
	return "no operator answers"
}
