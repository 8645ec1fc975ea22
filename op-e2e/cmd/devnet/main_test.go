package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/devnet"
)

// Everything that is wrong with the arguments is said in one line, before anything is started.
func TestBadArguments(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for args, want := range map[string]string{
		"":                                     "expected up, demo, drill, judge, latency, bench, compose or l1",
		"sideways":                             `"sideways" is not a command`,
		"up now":                               `"now" is not a flag`,
		"demo now":                             `"now" is not a flag`,
		"up --bad":                             "flag provided but not defined: -bad",
		"up --l1.block-time=1":                 "at least 2 s",
		"up --l1.block-time=x":                 `invalid value "x" for flag -l1.block-time`,
		"up --l2.block-time=0":                 "at least 1 s",
		"up --l2.block-time=5":                 "at most the L1 block time of 2 s",
		"up --chains=":                         "expected chain IDs in decimal",
		"up --chains=901;902":                  "expected chain IDs in decimal",
		"up --chains=901,901":                  "chain 901 is named twice",
		"up --engines=foo":                     `engine mode "foo"`,
		"up --engines=process --op-geth=/nope": "op-geth binary /nope: no such file",
		"up --da=pigeon":                       `--da: "pigeon": expected calldata or blobs`,
		"up --log.level=loud":                  `--log.level: "loud"`,
		"up --log.file=" + file + "/x":         "--log.file: ",
		"up --datadir=" + file:                 "--datadir: ",
		"up --l1.port=70000":                   "--l1.port: 70000: expected a port between 0 and 65535",
		"up --l1.port=7545":                    "port 7545 is also that of",
		"up --l2.port=65535":                   "--l2.port: 65536: expected a port",
		"up --load=-1":                         "--load: -1: expected 0 to 5000",
		"up --bundles=-1":                      "--bundles: -1: expected 0 to 600",
		"up --bundles=5 --chains=901":          "at least two rollups",
		"up --status.port=7546":                "port 7546 is also that of",
		"up --for=-1s":                         "--for: -1s: expected 0 or more",
		"up --operators=0":                     "--operators: 0: expected 1 or more",
		"up --operators=17":                    "17 operators: expected 1 to 16",
		"up --operators=two":                   `invalid value "two" for flag -operators`,
		"up --subblocks=-1":                    "-1 subblocks",
		"operator":                             "--datadir: missing",
		"operator now":                         `"now" is not a flag`,
		"operator --datadir=" + dir:            "operator 0: open",
		"bench --only=sideways":                `--only: "sideways": expected some of`,
		"bench --merge=" + dir + "/none":       "--merge: open",
		"bench --stock=" + dir:                 "`make stock` makes it",
		"demo --report":                        "flag needs an argument",
		"demo --chains=1":                      "flag provided but not defined: -chains",
	} {
		t.Run(args, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			err := newApp(io.Discard).Run(append([]string{"devnet"}, strings.Fields(args)...))
			require.ErrorContains(t, err, want)
			require.NotContains(t, oneLine(err), "\n")
			left, err := os.ReadDir(os.Getenv("TMPDIR"))
			require.NoError(t, err)
			require.Empty(t, left, "nothing is left behind")
		})
	}
}

func TestStatusLine(t *testing.T) {
	var out bytes.Buffer
	line := newStatusLine(&out)
	line.show(devnet.SlotSeen{Slot: 3600, Blocks: map[uint64]devnet.BlockSeen{
		901: {Number: 7, Txs: 3, GasUsed: 1_230_000, Late: -40 * time.Millisecond},
	}}, []uint64{901, 902}, 2)
	line.end()
	require.Equal(t, "slot 01:00:00 | 901 #7 3 tx 1.23 Mgas 40 ms early | 902 left out | 2 bundles wait\n", out.String())
}
