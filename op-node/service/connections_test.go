package service

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// 29 chains that ask at once, several times.
func TestKeepConnections(t *testing.T) {
	const chains, times = 29, 5
	dialled := func(tr *http.Transport) int64 {
		defer tr.CloseIdleConnections()
		var opened atomic.Int64
		var arrived sync.WaitGroup
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived.Done()
			arrived.Wait() // all are under way
		}))
		srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		srv.Start()
		defer srv.Close()
		client := &http.Client{Transport: tr}
		for range times {
			arrived.Add(chains)
			var asks sync.WaitGroup
			for range chains {
				asks.Go(func() {
					res, err := client.Get(srv.URL)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = io.Copy(io.Discard, res.Body)
					if err := res.Body.Close(); err != nil {
						t.Error(err)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			asks.Wait()
		}
		return opened.Load()
	}
	usual := http.DefaultTransport.(*http.Transport).Clone()
	require.Greater(t, dialled(usual), int64(chains*(times-1)), "why it is needed")
	kept := http.DefaultTransport.(*http.Transport).Clone()
	keepConnections(kept)
	require.EqualValues(t, chains, dialled(kept))
}
