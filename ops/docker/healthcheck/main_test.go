package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		reply  string
		err    string // empty: healthy
	}{
		"result":       {200, `{"jsonrpc":"2.0","id":1,"result":"0x1"}`, ""},
		"error":        {200, `{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no such method"}}`, "no such method"},
		"no result":    {200, `{"jsonrpc":"2.0","id":1,"result":null}`, "no result"},
		"empty":        {200, ``, "EOF"},
		"not JSON":     {200, `<html>`, "invalid character"},
		"other status": {503, `{"jsonrpc":"2.0","id":1,"result":"0x1"}`, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.reply))
			}))
			defer srv.Close()
			err := check(context.Background(), srv.URL, "eth_blockNumber")
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.err)
		})
	}
	t.Run("nobody", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		srv.Close()
		require.Error(t, check(context.Background(), srv.URL, "eth_blockNumber"))
	})
}
