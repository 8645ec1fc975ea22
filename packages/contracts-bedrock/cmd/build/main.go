// Command build compiles the contracts that the genesis needs and writes the forge artifacts op-deployer reads.
//
//	GOWORK=off go run ./packages/contracts-bedrock/cmd/build -out build/contracts
//
// With -test it runs the forge tests of our contracts instead.
//
// Upstream's sources come from the pinned Go modules, compilers and libraries from the npm lockfile beside this kit.
// The result is kept as long as no input changes; see inputs.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "contracts: "+err.Error())
		os.Exit(1)
	}
}

// builder holds what one run needs. All paths are absolute.
type builder struct {
	root    string // repository
	kit     string // packages/contracts-bedrock
	sources string // packages/contracts/src
	tests   string // packages/contracts/test
	out     string // result; replaced as a whole
	work    string // npm packages (kept) and forge projects
	forge   string // forge binary; empty: the npm package's
	node    string
	log     *progress
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.SetOutput(stderr)
	out := flags.String("out", "build/contracts", "directory of the result, replaced as a whole")
	work := flags.String("work", "", "directory for npm packages and intermediate files (default <out>.work)")
	forge := flags.String("forge", "", "forge "+forgeVersion+" to use instead of the npm package's (platforms without one)")
	test := flags.Bool("test", false, "run the forge tests of our contracts, and leave the result as it is")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	root, err := repositoryRoot()
	if err != nil {
		return err
	}
	b := &builder{
		root:    root,
		kit:     filepath.Join(root, "packages", "contracts-bedrock"),
		sources: filepath.Join(root, "packages", "contracts", "src"),
		tests:   filepath.Join(root, "packages", "contracts", "test"),
		log:     &progress{w: stderr, start: time.Now()},
	}
	if *work == "" {
		*work = *out + ".work"
	}
	if b.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if b.work, err = filepath.Abs(*work); err != nil {
		return err
	}
	if *forge != "" {
		if b.forge, err = exec.LookPath(*forge); err != nil {
			return fmt.Errorf("-forge: %w", err)
		}
	}
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(b.work, ".lock"), b.log)
	if err != nil {
		return err
	}
	defer unlock()

	in, err := b.inputs()
	if err != nil {
		return err
	}
	if *test {
		return b.test(ctx, in)
	}
	if upToDate(b.out, in.hash) {
		b.log.step("up to date (%s)", *out)
		return nil
	}
	return b.build(ctx, in)
}

func (b *builder) build(ctx context.Context, in *inputs) error {
	if err := b.findTools(); err != nil {
		return err
	}
	b.log.step("upstream's sources: optimism %s and %s", in.optimism.version, in.tokenBridge.version)
	optimism, err := moduleDir(ctx, in.optimism)
	if err != nil {
		return err
	}
	tokenBridge, err := moduleDir(ctx, in.tokenBridge)
	if err != nil {
		return err
	}
	npm, err := b.installPackages(ctx)
	if err != nil {
		return err
	}

	tmp := filepath.Join(b.work, "result")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	dst := filepath.Join(tmp, artifactsDir)

	bedrock, err := b.compileBedrock(ctx, optimism, npm)
	if err != nil {
		return err
	}
	own, err := b.compileOwn(ctx, tokenBridge, npm)
	if err != nil {
		return err
	}
	if err := writeEASArtifacts(optimism, bedrock); err != nil {
		return fmt.Errorf("EAS artifacts: %w", err)
	}
	report, err := checkHashes(optimism, bedrock)
	if err != nil {
		return err
	}
	if err := checkTokenBridge(tokenBridge, own); err != nil {
		return err
	}
	b.log.step("init code hashes: %s", report)
	for _, name := range in.artifacts {
		if err := copyArtifact(bedrock, dst, name); err != nil {
			return err
		}
	}
	if err := copyArtifact(bedrock, dst, "LibKeccakHarness.sol/LibKeccakHarness"); err != nil {
		return err
	}
	ownArtifacts := []string{
		"SuperchainTokenBridge.sol/SuperchainTokenBridge", "InteropTestToken.sol/InteropTestToken", "SubblockEvidence.sol/SubblockEvidence",
		"SwapPool.sol/SwapPool",
	}
	for _, name := range ownArtifacts {
		if err := copyArtifact(own, dst, name); err != nil {
			return err
		}
	}
	if err := writeManifest(tmp, in.hash); err != nil {
		return err
	}
	if err := replaceDir(tmp, b.out); err != nil {
		return err
	}
	for _, project := range []string{bedrockProject, ownProject} {
		if err := os.RemoveAll(filepath.Join(b.work, project)); err != nil {
			return err
		}
	}
	b.log.step("wrote %d artifacts to %s", len(in.artifacts)+1+len(ownArtifacts), filepath.Join(b.out, artifactsDir))
	return nil
}

// test compiles our contracts and their forge tests as build does, and runs the tests.
func (b *builder) test(ctx context.Context, in *inputs) error {
	if err := b.findTools(); err != nil {
		return err
	}
	tokenBridge, err := moduleDir(ctx, in.tokenBridge)
	if err != nil {
		return err
	}
	npm, err := b.installPackages(ctx)
	if err != nil {
		return err
	}
	summary, err := b.testOwn(ctx, tokenBridge, npm)
	if err != nil {
		return err
	}
	b.log.step("%s", summary)
	return nil
}

func (b *builder) findTools() error {
	var err error
	if b.node, err = exec.LookPath("node"); err != nil {
		return errors.New("node is not in PATH: install Node.js 18 or newer with npm (the Solidity compilers run in it)")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return errors.New("npm is not in PATH: install it with Node.js 18 or newer (it fetches the pinned compilers and libraries)")
	}
	return nil
}

// repositoryRoot walks up from the working directory to the directory with go.mod.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory: run this inside the repository")
		}
		dir = parent
	}
}

// lock keeps two runs apart that would write the same directories. It waits for the other one.
func lock(path string, log *progress) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		log.step("waiting for another run")
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	return func() { f.Close() }, nil
}

// replaceDir puts src in dst's place. A crash in between leaves no dst, never half of one.
func replaceDir(src, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	old := src + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dst, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(src, dst); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// progress writes one line per step with the time since the start.
type progress struct {
	w     io.Writer
	start time.Time
}

func (p *progress) step(format string, args ...any) {
	fmt.Fprintf(p.w, "contracts: %4.0fs %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// command runs a program to its end, with its output in logPath, and says every 15 s that it is still at it.
// On failure the last lines of the output are shown, and the error is one line.
func (b *builder) command(ctx context.Context, what, logPath string, cmd *exec.Cmd) error {
	out, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	// forge starts compilers: an interrupt must end them too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s: interrupted", what)
			}
			if text, readErr := os.ReadFile(logPath); readErr == nil {
				lines := strings.Split(strings.TrimSpace(string(text)), "\n")
				fmt.Fprintln(b.log.w, strings.Join(lines[max(0, len(lines)-25):], "\n"))
			}
			return fmt.Errorf("%s failed (%w), full output in %s", what, err, logPath)
		case <-tick.C:
			b.log.step("%s: still running", what)
		}
	}
}
