// Command flashblocks reads a Subblocks (formerly Flashblocks) stream, one JSON message a line,
// with the types that upstream's acceptance tests read it with, and writes what it understood.
// The system tests give it our stream.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ethereum-optimism/optimism/op-acceptance-tests/tests/flashblocks"
)

func main() {
	if err := copyStream(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// copyStream writes each message anew, as the types have it.
func copyStream(from io.Reader, to io.Writer) error {
	in, out := json.NewDecoder(bufio.NewReader(from)), json.NewEncoder(to)
	for n := 0; ; n++ {
		var f flashblocks.Flashblock
		if err := in.Decode(&f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("message %d: %w", n, err)
		}
		if err := out.Encode(f); err != nil {
			return err
		}
	}
}
