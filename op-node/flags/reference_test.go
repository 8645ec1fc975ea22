package flags

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md")

// The generated part of the page stands between these lines.
const (
	referenceBegin = "<!-- flags: written by go test ./op-node/flags -run TestReference -args -update -->\n"
	referenceEnd   = "<!-- flags end -->\n"
)

// TestReference keeps docs/configuration.md as the flags are.
func TestReference(t *testing.T) {
	page := filepath.Join("..", "..", "docs", "configuration.md")
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), referenceBegin)
	require.True(t, ok, "%s has no line %q", page, referenceBegin)
	tables, after, ok := strings.Cut(rest, referenceEnd)
	require.True(t, ok, "%s has no line %q", page, referenceEnd)

	want := reference(t, SharedSequencer)
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(before+referenceBegin+want+referenceEnd+after), 0o644))
		return
	}
	require.Equal(t, want, tables, "docs/configuration.md is not as the flags are: go test ./op-node/flags -run TestReference -args -update")
}

// reference is a table of flags in Markdown.
func reference(t *testing.T, all []cli.Flag) string {
	var b strings.Builder
	b.WriteString("| flag | environment variable | default | meaning |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;", "\n", " ")
	for _, f := range all {
		d, ok := f.(cli.DocGenerationFlag)
		require.True(t, ok, "%T", f)
		value := strings.Trim(d.GetDefaultText(), `"`)
		if value != "" && !strings.Contains(value, " ") {
			value = "`" + value + "`" // a value, not a sentence about it
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", f.Names()[0], strings.Join(d.GetEnvVars(), "`, `"), cell.Replace(value), cell.Replace(d.GetUsage()))
	}
	return b.String()
}
