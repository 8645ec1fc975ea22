package compose

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/rotation/cometbft"
)

func TestPowers(t *testing.T) {
	for n := 1; n <= MaxOperators; n++ {
		powers := Powers(n)
		require.Len(t, powers, n)
		require.Equal(t, n >= 3, canMiss(powers, n-1), "%d operators without the last", n)
		for i := range n {
			require.Equal(t, n >= 4 || n == 3 && i == 2, canMiss(powers, i), "%d operators without %d", n, i+1)
		}
	}
	require.False(t, canMiss([]uint64{1, 1, 1}, 0), "two thirds is not more than two thirds")
	require.Contains(t, Tolerance(Powers(3)), "when operator 3 is down, not without another")
	require.Contains(t, Tolerance(Powers(4)), "when any one of them is down")
	require.Contains(t, Tolerance(Powers(2)), "all of them are needed")
	require.Contains(t, Tolerance(Powers(1)), "alone")
}

func valid() Config {
	return Config{Chains: 2, Operators: 3, PortBase: DefaultPortBase, Project: "test", Tag: "dev", Monitoring: "/repo/ops"}
}

func TestConfigCheck(t *testing.T) {
	good := valid()
	require.NoError(t, good.Check())
	for want, change := range map[string]func(*Config){
		"0 chains: expected 1 to 16":     func(c *Config) { c.Chains = 0 },
		"17 chains: expected 1 to 16":    func(c *Config) { c.Chains = 17 },
		"0 operators: expected 1 to 16":  func(c *Config) { c.Operators = 0 },
		"17 operators: expected 1 to 16": func(c *Config) { c.Operators = 17 },
		"port base 80":                   func(c *Config) { c.PortBase = 80 },
		"port base 65500":                func(c *Config) { c.PortBase = 65500 },
		`project "No"`:                   func(c *Config) { c.Project = "No" },
		`tag ""`:                         func(c *Config) { c.Tag = "" },
	} {
		c := valid()
		change(&c)
		require.ErrorContains(t, c.Check(), want)
	}
}

func testLayout(chains, operators int) *layout {
	l := &layout{Config: valid()}
	l.Chains, l.Operators = chains, operators
	for i := range chains {
		l.ChainIDs = append(l.ChainIDs, firstChain+uint64(i))
	}
	for i, power := range Powers(operators) {
		l.Members = append(l.Members, operator{Number: i + 1, Power: power, NodeID: strings.Repeat(fmt.Sprint(i), 40)})
	}
	return l
}

// parsed is docker-compose.yml as a reader sees it.
type parsed struct {
	Services map[string]struct {
		Image     string
		Command   []string
		Networks  map[string]attachment
		Ports     []string
		Volumes   []string
		DependsOn map[string]condition `yaml:"depends_on"`
		Restart   string
		Profiles  []string
		ReadOnly  bool     `yaml:"read_only"`
		CapDrop   []string `yaml:"cap_drop"`
		User      string
	}
	Networks map[string]network
	Volumes  map[string]any
}

func composed(t *testing.T, l *layout) *parsed {
	t.Helper()
	g := &genesis.Output{Addresses: map[uint64]genesis.Addresses{firstChain: {}}}
	data, err := l.compose("/repo/build/compose", g)
	require.NoError(t, err)
	out := new(parsed)
	require.NoError(t, yaml.Unmarshal(data, out), "%s", data)
	return out
}

func TestComposeFile(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {2, 3}, {3, 4}, {MaxChains, MaxOperators}} {
		chains, operators := size[0], size[1]
		t.Run(fmt.Sprintf("%d chains, %d operators", chains, operators), func(t *testing.T) {
			l := testLayout(chains, operators)
			p := composed(t, l)
			ours := 1 + operators*(chains+1) + chains + 1 // L1, operators, batchers, proposer
			if operators > 1 {
				ours += operators // their keys
			}
			require.Len(t, p.Services, ours+2)
			for name, s := range p.Services {
				for _, port := range s.Ports {
					require.True(t, strings.HasPrefix(port, "127.0.0.1:${"), "%s publishes %s", name, port)
				}
				for network := range s.Networks {
					require.Contains(t, p.Networks, network, name)
				}
				for _, v := range s.Volumes {
					if source, _, _ := strings.Cut(v, ":"); !strings.HasPrefix(source, ".") {
						require.Contains(t, p.Volumes, source, name)
					}
				}
				for d := range s.DependsOn {
					require.Contains(t, p.Services, d, name)
				}
				if len(s.Profiles) > 0 {
					continue // images of others
				}
				require.True(t, s.ReadOnly, name)
				require.Equal(t, []string{"ALL"}, s.CapDrop, name)
				require.Empty(t, s.User, "%s: the images' user is none of root's", name)
			}
			for _, m := range l.Members {
				require.True(t, p.Networks[netEngine(m.Number)].Internal)
				for _, id := range l.ChainIDs {
					engine := p.Services[engineService(m.Number, id)]
					alias := engineAlias(m.Number, id)
					require.Contains(t, engine.Command, "--authrpc.addr="+alias, "the Engine API is on the operator's own network")
					require.Equal(t, []string{alias}, engine.Networks[netEngine(m.Number)].Aliases)
					for name, s := range p.Services {
						if _, there := s.Networks[netEngine(m.Number)]; there {
							require.True(t, name == nodeService(m.Number) || slices.Contains(l.services(m.Number), name), "%s is on the engine network of operator %d", name, m.Number)
						}
					}
					require.Equal(t, healthy, p.Services[nodeService(m.Number)].DependsOn[engineService(m.Number, id)].Condition)
				}
				require.Equal(t, healthy, p.Services[nodeService(m.Number)].DependsOn[l1Service].Condition)
			}
		})
	}
}

func TestPortsDiffer(t *testing.T) {
	l := testLayout(MaxChains, MaxOperators)
	ports := l.published()
	require.Len(t, ports, 2+MaxOperators*(3+MaxChains))
	for port := range ports {
		require.GreaterOrEqual(t, port, l.PortBase)
		require.Less(t, port, l.PortBase+portSpan)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	require.ErrorContains(t, portsFree(map[int]string{port: "L1"}), fmt.Sprintf("port %d, for L1, is in use", port))
}

// TestOperatorFiles: what an operator is given is complete, and containers can read it.
func TestOperatorFiles(t *testing.T) {
	dir := t.TempDir()
	l := testLayout(2, 0)
	for i, power := range Powers(3) {
		m, err := l.newOperator(dir, i+1, power)
		require.NoError(t, err)
		l.Members = append(l.Members, *m)
	}
	require.NoError(t, l.writeSet(dir))
	for _, m := range l.Members {
		for _, id := range l.ChainIDs {
			require.NoError(t, l.writeEngine(dir, m.Number, id))
		}
	}
	require.NoError(t, l.writeEnv(dir))
	require.NoError(t, open(dir))
	seen := map[string]bool{}
	for _, m := range l.Members {
		home := filepath.Join(dir, operatorsDir, fmt.Sprint(m.Number))
		secret, err := os.ReadFile(filepath.Join(home, "jwt.hex"))
		require.NoError(t, err)
		require.Len(t, common.FromHex(strings.TrimSpace(string(secret))), 32)
		require.False(t, seen[string(secret)], "operators share no secret")
		seen[string(secret)] = true
		text, err := os.ReadFile(filepath.Join(home, engineDir(901), "network.toml"))
		require.NoError(t, err)
		for _, other := range l.Members {
			require.Equal(t, other.Number != m.Number, strings.Contains(string(text), "@"+engineService(other.Number, 901)+":30303"))
		}
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "other users of the machine do not read it")
	info, err = os.Stat(filepath.Join(dir, operatorsDir, "1", "operator.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode().Perm(), "a container reads it as another user")
}

func TestInstallKeys(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	want, err := cometbft.InitKeys(from)
	require.NoError(t, err)
	require.NoError(t, InstallKeys(from, to))
	got, err := cometbft.InitKeys(filepath.Join(to, consensusDir))
	require.NoError(t, err)
	require.Equal(t, want, got)

	state := filepath.Join(to, consensusDir, "data", "priv_validator_state.json")
	require.NoError(t, os.WriteFile(state, []byte("voted"), 0o600))
	require.NoError(t, InstallKeys(from, to))
	data, err := os.ReadFile(state)
	require.NoError(t, err)
	require.Equal(t, "voted", string(data), "what was voted is never taken back")

	other := t.TempDir()
	_, err = cometbft.InitKeys(other)
	require.NoError(t, err)
	require.ErrorContains(t, InstallKeys(other, to), "another operator's consensus key")
}

func TestNothingThere(t *testing.T) {
	_, err := readLayout(t.TempDir())
	require.ErrorIs(t, err, errNone)
	require.ErrorContains(t, Generate(context.Background(), t.TempDir(), valid()), "exists and holds no devnet")
}

func TestLayoutDiffers(t *testing.T) {
	l := testLayout(2, 3)
	same := l.Config
	require.NoError(t, l.differs(&same))
	same.Operators = 4
	require.ErrorContains(t, l.differs(&same), "OPERATORS = 3 is there, not 4")
}

func TestAwaitMoving(t *testing.T) {
	left := 5
	err := awaitMoving(t.Context(), time.Hour, "the end", func(context.Context) (uint64, bool, error) {
		left--
		return uint64(left), left == 0, nil
	})
	require.NoError(t, err)
	err = awaitMoving(t.Context(), time.Millisecond, "the end", func(context.Context) (uint64, bool, error) {
		return 7, false, errors.New("at 7")
	})
	require.ErrorContains(t, err, "waiting for the end: it stands still for 1ms (last seen: at 7)")
}

func TestContainerState(t *testing.T) {
	for status, want := range map[string][2]bool{ // healthy, done
		"Up 3 minutes (healthy)":            {true, false},
		"Up 3 seconds (health: starting)":   {false, false},
		"Up 3 minutes (unhealthy)":          {false, false},
		"Up 3 minutes":                      {true, false},
		"Exited (0) 2 minutes ago":          {false, true},
		"Exited (137) 2 minutes ago":        {false, false},
		"Restarting (1) Less than a second": {false, false},
	} {
		state, _, _ := strings.Cut(strings.ToLower(status), " ")
		if state == "up" {
			state = "running"
		}
		c := container{Service: "l1", State: state, Status: status}
		require.Equal(t, want, [2]bool{c.Healthy(), c.Done()}, status)
	}
}
