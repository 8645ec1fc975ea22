package sequence

import (
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"
	"github.com/stretchr/testify/require"
)

func TestPlaces(t *testing.T) {
	tx := func(list types.AccessList) []byte {
		raw, err := types.NewTx(&types.DynamicFeeTx{ChainID: big.NewInt(1), AccessList: list}).MarshalBinary()
		require.NoError(t, err)
		return raw
	}
	executing, plain := tx(types.AccessList{{Address: params.InteropCrossL2InboxAddress}}), tx(nil)
	bundle := func(id byte, chain ChainID) Step {
		return Step{Chain: chain, Bundle: common.Hash{id}, Transactions: [][]byte{plain}}
	}
	fill := func(chain ChainID) Step { return Step{Chain: chain, Transactions: [][]byte{plain, plain}} }
	relay := func(chain ChainID) Step { return Step{Chain: chain, Transactions: [][]byte{executing}} }

	for name, c := range map[string]struct {
		steps []Step
		want  []Place
		err   string
	}{
		"nothing": {nil, []Place{}, ""},
		"all": {
			[]Step{bundle(1, 2), bundle(1, 1), bundle(2, 1), fill(1), fill(2), relay(1), relay(2), relay(1), bundle(3, 1), bundle(4, 2)},
			[]Place{BeforeFills, BeforeFills, BeforeFills, Fill, Fill, PlainRelay, PlainRelay, PlainRelay, AfterFills, AfterFills}, "",
		},
		"bundles only":              {[]Step{bundle(1, 1), bundle(2, 1)}, []Place{BeforeFills, BeforeFills}, ""},
		"a fill that executes":      {[]Step{relay(1), relay(2), relay(1)}, []Place{Fill, Fill, PlainRelay}, ""},
		"a fill and a late bundle":  {[]Step{fill(2), bundle(1, 1)}, []Place{Fill, AfterFills}, ""},
		"fills not ascending":       {[]Step{fill(2), fill(1)}, nil, "step 1 has plain transactions of chain 1 behind the fill of chain 2"},
		"two fills of a chain":      {[]Step{fill(1), fill(1)}, nil, "step 1"},
		"a fill behind a relay":     {[]Step{relay(1), relay(1), fill(2)}, nil, "step 2"},
		"several relays in a step":  {[]Step{fill(1), {Chain: 1, Transactions: [][]byte{executing, executing}}}, nil, "step 1"},
		"a relay without a message": {[]Step{fill(1), {Chain: 1, Transactions: [][]byte{plain}}}, nil, "expected one transaction that executes a message"},
		"a bundle among the fills":  {[]Step{fill(1), bundle(1, 1), fill(2)}, nil, "step 2 has plain transactions of chain 2 behind a bundle"},
		"a relay behind a bundle":   {[]Step{fill(1), bundle(1, 1), relay(2)}, nil, "step 2"},
		"no transaction":            {[]Step{fill(1), {Chain: 1, Transactions: [][]byte{{0xff}}}}, nil, "step 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := (&Subblock{Steps: c.steps}).Places()
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}
