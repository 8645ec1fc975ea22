package devnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Child is a child process. It dies with this one, whatever kills this one.
type Child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended and its output is read
	err  error         // how it ended; valid once done is closed
}

// StartChild runs a program. Each line it writes to stderr or stdout goes to onLine,
// from one goroutine.
func StartChild(name, bin string, args []string, onLine func(string)) (*Child, error) {
	p := &Child{name: name, cmd: exec.Command(bin, args...), done: make(chan struct{})}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // an interrupt from the terminal is for us: children stop in their order
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// The kernel sends the death signal when the thread that made the child ends:
		// keep that thread as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- errors.Join(fmt.Errorf("start %s: %w", name, err), in.Close(), out.Close())
			return
		}
		started <- nil
		_ = in.Close() // the child has its own
		var reader sync.WaitGroup
		reader.Add(1)
		go func() {
			defer reader.Done()
			readLines(out, onLine)
		}()
		p.err = p.cmd.Wait()
		reader.Wait()
		_ = out.Close()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func readLines(r io.Reader, onLine func(string)) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		onLine(sc.Text())
	}
	// A line too long for the scanner must not leave the child blocked on a full pipe.
	_, _ = io.Copy(io.Discard, r)
}

// PID is the process's id.
func (p *Child) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Child) Done() <-chan struct{} { return p.done }

// Signal sends the process a signal.
func (p *Child) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s to %s: %w", sig, p.name, err)
	}
	return nil
}

// Stop interrupts the process and waits for its end; when ctx ends first, it kills it.
func (p *Child) Stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("stop %s: it did not stop in time and was killed", p.name)
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return nil // by our signal, before it could handle it
		}
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w", p.name, p.err)
	}
	return nil
}

// Kill ends the process at once (SIGKILL) and waits for its end.
func (p *Child) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}
