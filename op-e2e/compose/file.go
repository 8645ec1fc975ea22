package compose

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-e2e/genesis"
)

// Networks. An operator's engine network is its own, and the only one on which its op-geths
// listen for the Engine API.
const (
	netL1  = "l1"  // L1, and all that reads it or posts to it
	netRPC = "rpc" // public RPC of op-nodes and op-geths, metrics; what users and batchers see
	netP2P = "p2p" // between operators: agreement, and op-geth's network
)

func netEngine(number int) string { return fmt.Sprintf("op%d-engine", number) }

// Ports inside the containers, the images' own.
const (
	rpcPort       = 8545
	authPort      = 8551
	beaconAPI     = 5052
	sequencerRPC  = 8570
	consensusPort = 26656
	metricsPort   = 7300
	gethMetrics   = 6060
)

// Profile is the compose profile of Prometheus and Grafana, whose images are pulled.
const Profile = "monitoring"

func nodeService(number int) string { return fmt.Sprintf("op%d-node", number) }
func keysService(number int) string { return fmt.Sprintf("op%d-keys", number) }
func engineService(number int, chain uint64) string {
	return fmt.Sprintf("op%d-geth-%d", number, chain)
}
func batcherService(chain uint64) string { return fmt.Sprintf("batcher-%d", chain) }

// engineAlias is the op-geth on the engine network, and there only: it listens for the
// Engine API on the address that this name has.
func engineAlias(number int, chain uint64) string {
	return fmt.Sprintf("op%d-engine-%d", number, chain)
}

const (
	l1Service         = "l1"
	proposerService   = "proposer"
	prometheusService = "prometheus"
	grafanaService    = "grafana"
)

// services of an operator, engines first.
func (l *layout) services(number int) []string {
	var out []string
	for _, id := range l.ChainIDs {
		out = append(out, engineService(number, id))
	}
	return append(out, nodeService(number))
}

// file is docker-compose.yml as far as it is used here: what docker-compose 1.29 and
// compose v2 both take.
type file struct {
	Services yaml.Node            `yaml:"services"` // in the order they were added
	Networks map[string]network   `yaml:"networks"`
	Volumes  map[string]*struct{} `yaml:"volumes"`
}

type dependsSpec map[string]condition

type condition struct {
	Condition string `yaml:"condition"`
}

const (
	healthy   = "service_healthy"
	completed = "service_completed_successfully"
)

type network struct {
	Internal bool `yaml:"internal,omitempty"` // no way out of this machine, and no published ports
}

type attachment struct {
	Aliases []string `yaml:"aliases,omitempty"`
}

type service struct {
	Image       string                `yaml:"image"`
	Profiles    []string              `yaml:"profiles,omitempty"`
	Entrypoint  []string              `yaml:"entrypoint,omitempty"`
	Command     []string              `yaml:"command,omitempty"`
	User        string                `yaml:"user,omitempty"`
	Environment map[string]string     `yaml:"environment,omitempty"`
	DependsOn   dependsSpec           `yaml:"depends_on,omitempty"`
	Networks    map[string]attachment `yaml:"networks,omitempty"`
	NetworkMode string                `yaml:"network_mode,omitempty"`
	Ports       []string              `yaml:"ports,omitempty"`
	Volumes     []string              `yaml:"volumes,omitempty"`
	Healthcheck *healthcheck          `yaml:"healthcheck,omitempty"`
	Restart     string                `yaml:"restart"`
	StopGrace   string                `yaml:"stop_grace_period,omitempty"`
	ReadOnly    bool                  `yaml:"read_only,omitempty"`
	Tmpfs       []string              `yaml:"tmpfs,omitempty"`
	CapDrop     []string              `yaml:"cap_drop,omitempty"`
	SecurityOpt []string              `yaml:"security_opt,omitempty"`
	Logging     *logging              `yaml:"logging,omitempty"`
}

// healthcheck is what differs from the image's.
type healthcheck struct {
	Interval    string `yaml:"interval,omitempty"`
	Timeout     string `yaml:"timeout,omitempty"`
	StartPeriod string `yaml:"start_period,omitempty"`
	Retries     int    `yaml:"retries,omitempty"`
	Disable     bool   `yaml:"disable,omitempty"`
}

type logging struct {
	Driver  string            `yaml:"driver"`
	Options map[string]string `yaml:"options"`
}

// add adds a service of ours with what they all have in common.
func (f *file) add(name string, s service) error {
	if s.Restart == "" {
		s.Restart = "unless-stopped"
	}
	s.CapDrop, s.SecurityOpt = []string{"ALL"}, []string{"no-new-privileges:true"}
	s.ReadOnly, s.Tmpfs = true, []string{"/tmp"}
	if s.Healthcheck == nil {
		// Often, for a quick start, but each check costs a process; patient, for machines that do much else.
		s.Healthcheck = &healthcheck{Interval: "10s", Timeout: "10s", StartPeriod: "60s", Retries: 3}
	}
	return f.put(name, s)
}

func (f *file) put(name string, s service) error {
	if s.Logging == nil {
		s.Logging = &logging{Driver: "json-file", Options: map[string]string{"max-size": "50m", "max-file": "3"}}
	}
	for _, v := range s.Volumes {
		if source, _, _ := strings.Cut(v, ":"); !strings.ContainsAny(source, "./") {
			f.Volumes[source] = nil
		}
	}
	var key, value yaml.Node
	if err := key.Encode(name); err != nil {
		return err
	}
	if err := value.Encode(s); err != nil {
		return err
	}
	f.Services.Content = append(f.Services.Content, &key, &value)
	return nil
}

// local publishes a port of a container on this machine only.
func local(variable string, port int) string {
	return fmt.Sprintf("127.0.0.1:${%s}:%d", variable, port)
}

func image(name string) string { return "op-shared-sequencer/" + name + ":${TAG}" }

// compose makes docker-compose.yml. dir is where it will be.
func (l *layout) compose(dir string, g *genesis.Output) ([]byte, error) {
	f := &file{Services: yaml.Node{Kind: yaml.MappingNode}, Volumes: map[string]*struct{}{}, Networks: map[string]network{
		netL1: {}, netRPC: {}, netP2P: {Internal: true},
	}}
	if err := f.add(l1Service, service{
		Image:   image("devnet"),
		Command: []string{"l1", "--genesis", "/genesis/" + genesis.L1File, "--datadir", "/data", "--addr", "0.0.0.0"},
		Networks: map[string]attachment{
			netL1: {},
		},
		Ports:     []string{local("L1_PORT", rpcPort), local("L1_BEACON_PORT", beaconAPI)},
		Volumes:   []string{"./" + genesisDir + ":/genesis:ro", "l1:/data"},
		StopGrace: "30s",
	}); err != nil {
		return nil, err
	}
	for _, m := range l.Members {
		if err := l.addOperator(f, m.Number); err != nil {
			return nil, err
		}
	}
	if err := l.addPosters(f, g); err != nil {
		return nil, err
	}
	if err := l.addMonitoring(f, dir); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Written by bin/devnet compose: %s.\n# What is changed here is lost with the next operator or chain. See ops/docker/README.md.\n", Tolerance(l.powers()))
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(f); err != nil {
		return nil, err
	}
	return out.Bytes(), enc.Close()
}

// addOperator adds an operator's op-geths, its op-node, and what puts its keys into place.
func (l *layout) addOperator(f *file, number int) error {
	n := strconv.Itoa(number)
	home := "./" + operatorsDir + "/" + n
	f.Networks[netEngine(number)] = network{Internal: true}
	depends := dependsSpec{l1Service: {healthy}}
	for _, id := range l.ChainIDs {
		depends[engineService(number, id)] = condition{healthy}
		if err := l.addEngine(f, number, id); err != nil {
			return err
		}
	}
	volume := fmt.Sprintf("op%d-node:/data", number)
	if !l.alone() {
		depends[keysService(number)] = condition{completed}
		if err := f.add(keysService(number), service{
			Image:       image("devnet"),
			Command:     []string{"compose", "install-keys", "--from", "/keys", "--to", "/data/shared-sequencer"},
			NetworkMode: "none", Restart: "no", Healthcheck: &healthcheck{Disable: true},
			Volumes: []string{home + "/" + consensusDir + ":/keys:ro", volume},
		}); err != nil {
			return err
		}
	}
	return f.add(nodeService(number), service{
		Image:     image("op-node"),
		Command:   l.nodeArgs(number),
		DependsOn: depends,
		Networks:  map[string]attachment{netL1: {}, netRPC: {}, netP2P: {}, netEngine(number): {}},
		Ports: []string{
			local("OP"+n+"_NODE_PORT", rpcPort), local("OP"+n+"_SHAREDSEQ_PORT", sequencerRPC), local("OP"+n+"_METRICS_PORT", metricsPort),
		},
		Volumes:   []string{"./" + genesisDir + ":/genesis:ro", "./" + sharedDir + ":/shared:ro", home + ":/config:ro", volume},
		StopGrace: "20s",
	})
}

// nodeArgs are op-node's flags: as in op-node/README.md, with the times of a devnet.
func (l *layout) nodeArgs(number int) []string {
	ids := make([]string, len(l.ChainIDs))
	for i, id := range l.ChainIDs {
		ids[i] = strconv.FormatUint(id, 10)
	}
	args := []string{
		"--chains=" + strings.Join(ids, ","), "--data-dir=/data",
		"--l1=" + l1URL, "--l1.beacon=" + beaconURL, "--l1.http-poll-interval=500ms",
		"--vn.all.rollup.l1-chain-config=/genesis/" + genesis.L1File,
		"--dependency-set=/shared/" + depsetFile,
		"--vn.all.l2.jwt-secret=/config/jwt.hex", "--vn.all.l2.enginekind=geth", "--vn.all.sequencer.l1-confs=2",
		"--disable-p2p",
		"--rpc.addr=0.0.0.0", fmt.Sprintf("--rpc.port=%d", rpcPort), "--rpc.enable-admin",
		"--metrics.enabled", "--metrics.addr=0.0.0.0", fmt.Sprintf("--metrics.port=%d", metricsPort),
		"--shared-sequencer.enabled", "--shared-sequencer.relayer-key-file=/config/relayer.key",
		"--shared-sequencer.rpc.addr=0.0.0.0", fmt.Sprintf("--shared-sequencer.rpc.port=%d", sequencerRPC),
	}
	for _, id := range l.ChainIDs {
		args = append(args,
			fmt.Sprintf("--vn.%d.rollup.config=/genesis/%s", id, genesis.RollupFile(id)),
			fmt.Sprintf("--vn.%d.l2=http://%s:%d", id, engineAlias(number, id), authPort))
	}
	if l.alone() {
		return args
	}
	var peers []string
	for _, m := range l.Members {
		if m.Number != number {
			peers = append(peers, fmt.Sprintf("%s@%s:%d", m.NodeID, nodeService(m.Number), consensusPort))
		}
	}
	return append(args,
		"--shared-sequencer.rotation=cometbft", "--shared-sequencer.operators=/shared/"+operatorsFile,
		"--shared-sequencer.operator-key-file=/config/operator.key",
		fmt.Sprintf("--shared-sequencer.consensus.listen=0.0.0.0:%d", consensusPort),
		"--shared-sequencer.consensus.peers="+strings.Join(peers, ","))
}

var (
	l1URL     = fmt.Sprintf("http://%s:%d", l1Service, rpcPort)
	beaconURL = fmt.Sprintf("http://%s:%d", l1Service, beaconAPI)
)

func (l *layout) addEngine(f *file, number int, chain uint64) error {
	name, id := engineService(number, chain), strconv.FormatUint(chain, 10)
	api := "eth,net,web3,debug,txpool,miner" // the batcher needs miner
	args := []string{
		"--datadir=/data", "--networkid=" + id, "--override.genesis=/genesis/" + genesis.L2File(chain),
		"--syncmode=full", "--gcmode=full", "--state.scheme=path", "--cache=64",
		"--nodiscover", "--ipcdisable", "--nat=none", "--config=/config/network.toml", "--nodekey=/config/nodekey",
		"--http", "--http.addr=0.0.0.0", fmt.Sprintf("--http.port=%d", rpcPort), "--http.api=" + api, "--http.vhosts=localhost," + name,
		"--ws", "--ws.addr=0.0.0.0", fmt.Sprintf("--ws.port=%d", rpcPort), "--ws.api=" + api,
		"--authrpc.addr=" + engineAlias(number, chain), fmt.Sprintf("--authrpc.port=%d", authPort),
		"--authrpc.vhosts=" + engineAlias(number, chain), "--authrpc.jwtsecret=/config/jwt.hex",
		fmt.Sprintf("--rollup.interoprpc=http://%s:%d", nodeService(number), sequencerRPC), "--rollup.interopmempoolfiltering",
		"--metrics", "--metrics.addr=0.0.0.0", fmt.Sprintf("--metrics.port=%d", gethMetrics),
	}
	if l.alone() {
		args = append(args, "--maxpeers=0", "--rollup.disabletxpoolgossip")
	}
	return f.add(name, service{
		Image: image("op-geth"), Command: args,
		Networks: map[string]attachment{netRPC: {}, netP2P: {}, netEngine(number): {Aliases: []string{engineAlias(number, chain)}}},
		Ports:    []string{local(fmt.Sprintf("OP%d_GETH_%d_PORT", number, chain), rpcPort)},
		Volumes: []string{
			"./" + genesisDir + ":/genesis:ro", fmt.Sprintf("./%s/%d/%s:/config:ro", operatorsDir, number, engineDir(chain)), name + ":/data",
		},
		StopGrace: "1m", // it writes its state; killed, it starts more slowly
	})
}

// addPosters adds what brings the chains to L1: a batcher per chain and the proposer. They
// are given all operators, and go on with another one when theirs does not answer.
func (l *layout) addPosters(f *file, g *genesis.Output) error {
	depends := dependsSpec{l1Service: {healthy}, nodeService(l.Members[0].Number): {healthy}}
	networks := map[string]attachment{netL1: {}, netRPC: {}}
	all := func(url func(number int) string) string {
		var urls []string
		for _, m := range l.Members {
			urls = append(urls, url(m.Number))
		}
		return strings.Join(urls, ",")
	}
	txmgr := []string{
		"--num-confirmations=1", "--resubmission-timeout=3s", "--network-timeout=5s", "--txmgr.receipt-query-interval=200ms",
		"--rpc.addr=0.0.0.0", fmt.Sprintf("--rpc.port=%d", rpcPort),
		"--metrics.enabled", "--metrics.addr=0.0.0.0", fmt.Sprintf("--metrics.port=%d", metricsPort),
	}
	da := "calldata"
	if l.Blobs {
		da = "blobs"
	}
	for _, id := range l.ChainIDs {
		engines := all(func(n int) string { return fmt.Sprintf("http://%s:%d", engineService(n, id), rpcPort) })
		nodes := all(func(n int) string { return fmt.Sprintf("http://%s:%d/%d", nodeService(n), rpcPort, id) })
		if err := f.add(batcherService(id), service{
			Image: image("op-batcher"),
			Command: append([]string{
				"--l1-eth-rpc=" + l1URL, "--l2-eth-rpc=" + engines, "--rollup-rpc=" + nodes,
				"--data-availability-type=" + da, "--batch-type=1", "--compression-algo=brotli",
				// A channel per L1 block: blocks are safe within seconds.
				"--max-channel-duration=1", "--sub-safety-margin=4", "--target-num-frames=1", "--max-l1-tx-size-bytes=120000",
				"--max-blocks-per-span-batch=10", "--poll-interval=500ms", "--max-pending-tx=7", "--active-sequencer-check-duration=2s",
			}, txmgr...),
			Environment: map[string]string{"OP_BATCHER_PRIVATE_KEY": fmt.Sprintf("${BATCHER_%d_KEY}", id)},
			DependsOn:   depends, Networks: networks,
		}); err != nil {
			return err
		}
	}
	return f.add(proposerService, service{
		Image: image("op-proposer"),
		Command: append([]string{
			"--l1-eth-rpc=" + l1URL,
			"--superroot-rpcs=" + all(func(n int) string { return fmt.Sprintf("http://%s:%d", nodeService(n), rpcPort) }),
			"--game-factory-address=" + g.Addresses[l.ChainIDs[0]].DisputeGameFactoryProxy.Hex(), "--game-type=5",
			"--allow-non-finalized", "--proposal-interval=12s", "--poll-interval=500ms", "--active-sequencer-check-duration=5s",
		}, txmgr...),
		Environment: map[string]string{"OP_PROPOSER_PRIVATE_KEY": "${PROPOSER_KEY}"},
		DependsOn:   depends, Networks: networks,
	})
}

// addMonitoring adds Prometheus and Grafana, behind a profile: their images are not ours.
func (l *layout) addMonitoring(f *file, dir string) error {
	mount := func(what string) (string, error) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		path, err := filepath.Rel(abs, filepath.Join(l.Monitoring, what))
		return path, err
	}
	if l.Monitoring == "" {
		return nil
	}
	rules, err := mount("prometheus")
	if err != nil {
		return err
	}
	dashboards, err := mount("grafana")
	if err != nil {
		return err
	}
	if err := f.put(prometheusService, service{
		Image: "prom/prometheus:v3.5.0", Profiles: []string{Profile}, Restart: "unless-stopped",
		Networks: map[string]attachment{netRPC: {}}, Ports: []string{local("PROMETHEUS_PORT", 9090)},
		Volumes: []string{"./monitoring/prometheus.yml:/etc/prometheus/prometheus.yml:ro", rules + ":/etc/prometheus/rules:ro", "prometheus:/prometheus"},
	}); err != nil {
		return err
	}
	return f.put(grafanaService, service{
		Image: "grafana/grafana:12.1.1", Profiles: []string{Profile}, Restart: "unless-stopped",
		Environment: map[string]string{"GF_AUTH_ANONYMOUS_ENABLED": "true", "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer"},
		Networks:    map[string]attachment{netRPC: {}}, Ports: []string{local("GRAFANA_PORT", 3000)},
		Volumes: []string{"./monitoring/grafana:/etc/grafana/provisioning:ro", dashboards + ":/var/lib/grafana/dashboards:ro", "grafana:/var/lib/grafana"},
	})
}

// writeMonitoring writes what Prometheus scrapes, and where Grafana finds it and the dashboards.
func (l *layout) writeMonitoring(dir string) error {
	type job struct {
		Name    string `yaml:"job_name"`
		Path    string `yaml:"metrics_path,omitempty"`
		Targets []any  `yaml:"static_configs"`
	}
	var nodes, engines, batchers []string
	for _, m := range l.Members {
		nodes = append(nodes, fmt.Sprintf("%s:%d", nodeService(m.Number), metricsPort))
		for _, id := range l.ChainIDs {
			engines = append(engines, fmt.Sprintf("%s:%d", engineService(m.Number, id), gethMetrics))
		}
	}
	for _, id := range l.ChainIDs {
		batchers = append(batchers, fmt.Sprintf("%s:%d", batcherService(id), metricsPort))
	}
	targets := func(t []string) []any { return []any{map[string]any{"targets": t}} }
	for name, content := range map[string]any{
		"monitoring/prometheus.yml": map[string]any{
			"global":     map[string]any{"scrape_interval": "2s", "evaluation_interval": "5s"},
			"rule_files": []string{"/etc/prometheus/rules/*.yml", "/etc/prometheus/rules/*.yaml"},
			"scrape_configs": []job{
				{"op-node", "", targets(nodes)},
				{"op-geth", "/debug/metrics/prometheus", targets(engines)},
				{"op-batcher", "", targets(batchers)},
				{"op-proposer", "", targets([]string{fmt.Sprintf("%s:%d", proposerService, metricsPort)})},
			},
		},
		"monitoring/grafana/datasources/prometheus.yaml": map[string]any{
			"apiVersion": 1, "datasources": []any{map[string]any{
				"name": "Prometheus", "type": "prometheus", "access": "proxy", "isDefault": true, "url": "http://" + prometheusService + ":9090",
			}},
		},
		"monitoring/grafana/dashboards/dashboards.yaml": map[string]any{
			"apiVersion": 1, "providers": []any{map[string]any{
				"name": "op-shared-sequencer", "type": "file", "options": map[string]any{"path": "/var/lib/grafana/dashboards"},
			}},
		},
	} {
		data, err := yaml.Marshal(content)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return nil
}
