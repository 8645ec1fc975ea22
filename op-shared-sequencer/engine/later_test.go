package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-service/eth"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/engine/enginefake"
)

// everyCall makes all calls of an engine that may be away.
func everyCall(e engine.Engine) map[string]error {
	bg, out := context.Background(), map[string]error{}
	_, out["open"] = e.Open(bg, eth.BlockID{Hash: common.Hash{1}}, &eth.PayloadAttributes{})
	out["insert"] = e.Insert(bg, common.Hash{1})
	out["setHead"] = e.SetHead(bg, common.Hash{1}, common.Hash{}, common.Hash{})
	_, out["head"] = e.Head(bg)
	_, out["block"] = e.Block(bg, 0)
	_, out["blockByHash"] = e.BlockByHash(bg, common.Hash{1})
	_, out["payload"] = e.Payload(bg, common.Hash{1})
	_, out["receipts"] = e.Receipts(bg, common.Hash{1})
	return out
}

func TestConnectLater(t *testing.T) {
	come := make(chan struct{})
	fake := enginefake.New(901, 1)
	l := engine.Connect(901, func(ctx context.Context) (engine.Engine, error) {
		<-come
		return fake, nil
	}, func(err error) { t.Errorf("refused: %v", err) })
	defer l.Close()
	for call, err := range everyCall(l) {
		require.ErrorIs(t, err, engine.ErrUnavailable, call)
	}
	require.ErrorIs(t, l.Import(context.Background(), nil), engine.ErrUnavailable)
	close(come)
	require.NoError(t, l.Await(context.Background()))
	for call, err := range everyCall(l) {
		require.NotErrorIs(t, err, engine.ErrUnavailable, call)
	}
	head, err := l.Head(context.Background())
	require.NoError(t, err)
	require.Equal(t, fake.Genesis().ID(), head.ID())
}

func TestConnectRefused(t *testing.T) {
	wrong, told := errors.New("another chain's"), make(chan error, 1)
	l := engine.Connect(901, func(context.Context) (engine.Engine, error) { return nil, wrong }, func(err error) { told <- err })
	defer l.Close()
	require.ErrorIs(t, <-told, wrong)
	require.ErrorIs(t, l.Await(context.Background()), wrong)
	_, err := l.Head(context.Background())
	require.ErrorIs(t, err, wrong)
	require.ErrorIs(t, err, engine.ErrUnavailable)
}

func TestConnectClosed(t *testing.T) {
	l := engine.Connect(901, func(ctx context.Context) (engine.Engine, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, func(err error) { t.Errorf("refused: %v", err) })
	l.Close()
	require.Error(t, l.Await(context.Background()))
}
