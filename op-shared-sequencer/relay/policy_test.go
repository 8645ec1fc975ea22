package relay

import (
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/predeploys"
)

func TestPolicy(t *testing.T) {
	sender, target := common.Address{19: 1}, common.Address{19: 2}
	l := &types.Log{
		Address: predeploys.L2toL2CrossDomainMessengerAddr, Data: append(common.LeftPadBytes(sender[:], 32), make([]byte, 64)...),
		Topics: []common.Hash{sentMessage, {31: 7}, common.BytesToHash(target[:]), {}},
	}
	dest, ok := Destination(l)
	require.True(t, ok)
	require.EqualValues(t, 7, dest)
	require.Equal(t, sender, Sender(l))
	for name, test := range map[string]struct {
		policy Policy
		takes  bool
		says   string
	}{
		"default":  {DefaultPolicy(), false, ""},
		"off":      {Policy{Mode: Off}, false, ""},
		"all":      {Policy{Mode: All, SlotGas: 1, SenderGas: 1}, true, ""},
		"sender":   {Policy{Mode: AllowList, Allowed: []common.Address{sender}, SlotGas: 1, SenderGas: 1}, true, ""},
		"target":   {Policy{Mode: AllowList, Allowed: []common.Address{target}, SlotGas: 1, SenderGas: 1}, true, ""},
		"others":   {Policy{Mode: AllowList, Allowed: []common.Address{{9}}, SlotGas: 1, SenderGas: 1}, false, ""},
		"unknown":  {Policy{Mode: "some"}, false, "expected one of [off bundles allow-list all]"},
		"empty":    {Policy{Mode: AllowList, SlotGas: 1, SenderGas: 1}, false, "without an address"},
		"list":     {Policy{Mode: Bundles, Allowed: []common.Address{{9}}}, false, "which is for allow-list"},
		"no gas":   {Policy{Mode: All, SlotGas: 1}, true, "gas budget of 0"},
		"no slots": {Policy{Mode: All, SenderGas: 1}, true, "gas budget of 0"},
	} {
		require.Equal(t, test.takes, test.policy.Takes(l), name)
		if err := test.policy.Check(); test.says == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, test.says, name)
		}
	}
	all := Policy{Mode: All, SlotGas: 1, SenderGas: 1}
	for size, want := range map[int]bool{maxMessage: true, maxMessage + 1: false} {
		l.Data = make([]byte, size)
		require.Equal(t, want, all.Takes(l), "%d bytes", size)
	}
	l.Data = nil
	require.Zero(t, Sender(l), "no such log comes from the messenger")
}
