package faultnet

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Who is cut off hears nothing, on old connections and new ones, and everything once it
// is connected again.
func TestNetworkCut(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	n := New()
	defer n.Close()
	addr := n.Link(0, 1, server.Addr().String())
	require.NoError(t, n.Err())
	other := n.Link(2, 1, server.Addr().String())

	connect := func(addr string) (client, served net.Conn) {
		client, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		served, err = server.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = served.Close() })
		return client, served
	}
	says := func(from, to net.Conn, what string) {
		_, err := from.Write([]byte(what))
		require.NoError(t, err)
		got := make([]byte, len(what))
		require.NoError(t, to.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = io.ReadFull(to, got)
		require.NoError(t, err)
		require.Equal(t, what, string(got))
	}
	silent := func(c net.Conn) {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err := c.Read(make([]byte, 1))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
	}
	client, served := connect(addr)
	says(client, served, "there")
	says(served, client, "back")

	n.Set(0, true)
	_, err = client.Write([]byte("later"))
	require.NoError(t, err)
	silent(served)
	// Others are not touched.
	oc, os := connect(other)
	says(oc, os, "others")
	late, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer late.Close()

	n.Set(0, false)
	got := make([]byte, len("later"))
	require.NoError(t, served.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = io.ReadFull(served, got)
	require.NoError(t, err)
	require.Equal(t, "later", string(got))
	reached, err := server.Accept()
	require.NoError(t, err)
	says(late, reached, "new")
	require.NoError(t, reached.Close())

	// The end of one side is the end of the other.
	require.NoError(t, client.Close())
	require.NoError(t, served.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = served.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}
