// Command page makes docs/benchmarks.md and its plots of what a run of the benchmarks measured.
// The defaults of its flags are for this directory:
//
//	GOWORK=off go -C op-e2e/bench/page run .
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	var f files
	flag.StringVar(&f.in, "in", "../../../build/reports/bench.json", "what was measured")
	flag.StringVar(&f.out, "out", "../../../docs/benchmarks.md", "the page to write")
	flag.StringVar(&f.images, "images", "../../../docs/images", "directory for the plots")
	flag.StringVar(&f.notes, "notes", "notes.md", "Markdown for the end of the page; none if empty")
	flag.Parse()
	if err := write(f); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

type files struct{ in, out, images, notes string }

func write(f files) error {
	r, err := readReport(f.in)
	if err != nil {
		return err
	}
	notes, err := readNotes(f.notes)
	if err != nil {
		return err
	}
	images, err := link(f.out, f.images)
	if err != nil {
		return err
	}
	p := render(r, notes, images)
	if err := os.MkdirAll(f.images, 0o755); err != nil {
		return fmt.Errorf("directory for the plots: %w", err)
	}
	// Plots first: a page is not to link to what could not be drawn.
	if err := drawAll(f.images, p.charts); err != nil {
		return err
	}
	if err := os.WriteFile(f.out, []byte(p.String()), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

func readReport(path string) (*Report, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nothing was measured yet, run make bench first: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was measured: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s is no report of the benchmarks, run make bench again: %w", path, err)
	}
	if len(notRun(r)) == len(sections) {
		return nil, fmt.Errorf("%s has no results, run make bench again", path)
	}
	return r, nil
}

func readNotes(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("notes for the end of the page (leave them out with -notes ''): %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// link is how the page names the directory of its plots.
func link(page, images string) (string, error) {
	from, err := filepath.Abs(filepath.Dir(page))
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(images)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(from, to)
	if err != nil {
		return "", fmt.Errorf("the page cannot link to its plots: %w", err)
	}
	return filepath.ToSlash(rel), nil
}
