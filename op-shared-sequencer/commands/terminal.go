package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/keyfile"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/overview"
)

// terminal is what the output may use: colours, and drawing over what was drawn. Only if it
// is a terminal, and the user has not said NO_COLOR.
type terminal struct {
	out   io.Writer
	fancy bool
	// ask prompts for a password; nil if nobody can be asked.
	ask func(prompt string) (string, error)
}

func newTerminal(env Env) *terminal {
	t := &terminal{out: env.Out, fancy: isTerminal(env.Out) && env.Getenv("NO_COLOR") == "" && env.Getenv("TERM") != "dumb"}
	if in, ok := env.In.(*os.File); ok && isTerminal(env.In) {
		t.ask = func(prompt string) (string, error) {
			fmt.Fprint(env.Err, prompt)
			text, err := term.ReadPassword(int(in.Fd()))
			fmt.Fprintln(env.Err)
			return string(text), err
		}
	}
	return t
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (t *terminal) style() overview.Style {
	if !t.fancy {
		return overview.Style{}
	}
	colour := func(code string) func(string) string {
		return func(s string) string { return "\x1b[" + code + "m" + s + "\x1b[0m" }
	}
	return overview.Style{Good: colour("32"), Bad: colour("31"), Faint: colour("2")}
}

// redraw draws a text over what was drawn before, from the top of the terminal. It is
// written at once, so that nothing flickers.
func (t *terminal) redraw(text string) error {
	const home, clearLine, clearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	_, err := io.WriteString(t.out, home+strings.ReplaceAll(text, "\n", clearLine+"\n")+clearBelow)
	return err
}

// progress overwrites one line; without a terminal it says nothing.
func (t *terminal) progress(text string) {
	if t.fancy {
		fmt.Fprint(t.out, "\r\x1b[K"+text)
	}
}

// errNoPassword: nobody can be asked.
var errNoPassword = fmt.Errorf("no password: expected --%s, or a terminal to ask for it on", passwordFlag.Name)

// newPassword asks for a password that protects something from now on: twice.
func (t *terminal) newPassword(file string) (keyfile.Password, error) {
	if file != "" {
		return passwordOf(file)
	}
	if t.ask == nil {
		return "", &Exit{ExitUsage, errNoPassword}
	}
	first, err := t.ask("Password for the new keys: ")
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", errors.New("the password is empty")
	}
	again, err := t.ask("Again: ")
	if err != nil {
		return "", err
	}
	if first != again {
		return "", errors.New("the passwords differ")
	}
	return keyfile.Password(first), nil
}

// password asks for the password of something that is protected.
func (t *terminal) password(file, prompt string) (keyfile.Password, error) {
	if file != "" {
		return passwordOf(file)
	}
	if t.ask == nil {
		return "", &Exit{ExitUsage, errNoPassword}
	}
	text, err := t.ask(prompt)
	return keyfile.Password(text), err
}

func passwordOf(file string) (keyfile.Password, error) {
	p, err := keyfile.ReadPassword(file)
	if err != nil {
		return "", fmt.Errorf("--%s: %w", passwordFlag.Name, err)
	}
	return p, nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func cloneFlags(flags []cli.Flag) []cli.Flag {
	for i, f := range flags {
		c := reflect.New(reflect.TypeOf(f).Elem())
		c.Elem().Set(reflect.ValueOf(f).Elem())
		flags[i] = c.Interface().(cli.Flag)
	}
	return flags
}
