package service

import (
	"context"
	"net"
	"strconv"

	"github.com/ethereum-optimism/optimism/op-service/httputil"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequencer"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/stream"
)

// listeners are told one after the other.
type listeners []sequencer.Listener

func (l listeners) SubblockCommitted(c sequencer.Committed) {
	for _, to := range l {
		to.SubblockCommitted(c)
	}
}

// serveStreams opens the Subblocks streams of the chains, if there are to be any.
func (sh *shared) serveStreams() error {
	if sh.streams.ListenAddr == "" {
		return nil
	}
	socket := stream.NewSocket(stream.SocketConfig{}, sh.feed, sh.rpcConfig.Chains, sh.log)
	server, err := httputil.StartHTTPServer(net.JoinHostPort(sh.streams.ListenAddr, strconv.Itoa(sh.streams.ListenPort)), socket)
	if err != nil {
		return err
	}
	sh.streamServer = server
	sh.streamURL = "ws://" + server.Addr().String()
	sh.log.Info("Started Subblocks streams", "url", sh.streamURL+"/<chain ID>")
	return nil
}

// stopStreams tells all that listen that it is over.
func (sh *shared) stopStreams(ctx context.Context) error {
	sh.feed.Close()
	if sh.streamServer == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pageStopTime)
	defer cancel()
	return sh.streamServer.Stop(ctx)
}
