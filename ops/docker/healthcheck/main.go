// Command healthcheck asks a JSON-RPC server whether it answers: exit code 0 if it does. It
// is in the images, which have no shell, beside programs that are upstream's, or take a third
// of a second to start, which is much for a check every few seconds.
//
//	healthcheck http://127.0.0.1:8545 eth_blockNumber
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// timeout is below that of the images' HEALTHCHECK, so that the reason is told.
	timeout = 4 * time.Second
	// maxReply is more than any reply that is asked for here.
	maxReply = 1 << 20
)

// Set by the linker.
var (
	version = "v0.1.0"
	commit  = ""
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("healthcheck version", version, commit)
		return
	}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "healthcheck: expected the URL of a JSON-RPC server and a method without arguments")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := check(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "healthcheck:", err)
		os.Exit(1)
	}
}

// check calls a method and expects a result.
func check(ctx context.Context, url, method string) error {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": []any{}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP status %s", url, res.Status)
	}
	var reply struct {
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReply)).Decode(&reply); err != nil {
		return fmt.Errorf("%s %s: %w", url, method, err)
	}
	switch {
	case reply.Error != nil:
		return fmt.Errorf("%s %s: error %d: %s", url, method, reply.Error.Code, reply.Error.Message)
	case len(reply.Result) == 0 || string(reply.Result) == "null":
		return errors.New(url + " " + method + ": no result")
	}
	return nil
}
