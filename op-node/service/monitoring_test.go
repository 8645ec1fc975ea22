package service

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"
	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-node/config"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rpc"
)

// Why the process ended by itself is there at its next start.
func TestLastFailure(t *testing.T) {
	sh := &shared{log: log.NewLogger(log.DiscardHandler())}
	c := &config.SharedSequencer{DataDir: t.TempDir()}
	require.True(t, sh.lastFailure(c).IsZero())
	var asked error
	sh.noteFailure(c, func(err error) { asked = err })(errors.New("consensus has ended"))
	require.ErrorContains(t, asked, "consensus")
	require.WithinDuration(t, time.Now(), sh.lastFailure(c), time.Minute)
	why, err := os.ReadFile(filepath.Join(c.DataDir, failureFile))
	require.NoError(t, err)
	require.Equal(t, "consensus has ended\n", string(why))
	c.DataDir = filepath.Join(c.DataDir, "gone") // the stop is asked for all the same
	asked = nil
	sh.noteFailure(c, func(err error) { asked = err })(errors.New("again"))
	require.ErrorContains(t, asked, "again")
}

// The methods that are counted by name are those that are served.
func TestMethodsAreCounted(t *testing.T) {
	api, err := rpc.NewAPI(rpc.DefaultConfig(), nil, nil, nil, nil, nil)
	require.NoError(t, err)
	var served []string
	for _, a := range append(ingressAPIs(nil), api.Register()...) {
		typ := reflect.TypeOf(a.Service)
		for i := range typ.NumMethod() {
			name := typ.Method(i).Name
			if typ.Method(i).Type.Out(0) == reflect.TypeFor[*gethrpc.Subscription]() {
				continue // subscribed to by name
			}
			served = append(served, a.Namespace+"_"+strings.ToLower(name[:1])+name[1:])
		}
	}
	served = append(served, rpc.Namespace+"_subscribe", rpc.Namespace+"_unsubscribe")
	require.ElementsMatch(t, served, publicMethods)
	served = nil
	typ := reflect.TypeOf(&admin{})
	for i := range typ.NumMethod() {
		name := typ.Method(i).Name
		served = append(served, "admin_"+strings.ToLower(name[:1])+name[1:])
	}
	require.ElementsMatch(t, served, adminMethods)
}

func TestDiskSpace(t *testing.T) {
	free, size, ok := diskSpace(t.TempDir())
	if ok {
		require.Positive(t, size)
		require.LessOrEqual(t, free, size)
	}
	_, _, ok = diskSpace(filepath.Join(t.TempDir(), "none"))
	require.False(t, ok)
}
