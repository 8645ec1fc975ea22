package compose

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"syscall"
)

// Published ports, from the base: those of L1 and the monitoring first, then 20 per operator.
const (
	portL1 = iota
	portBeacon
	portPrometheus
	portGrafana

	portOperators = 20 // of operator 1
	portNode      = 0  // in an operator's: op-node, super roots and /<chain>
	portSequencer = 1  // sharedseq
	portMetrics   = 2  // op-node's
	portEngines   = 4  // op-geth of the first chain, then of the others

	portStride = 20
	portSpan   = portOperators + MaxOperators*portStride
)

func (c *Config) l1Port() int                { return c.PortBase + portL1 }
func (c *Config) beaconPort() int            { return c.PortBase + portBeacon }
func (c *Config) prometheusPort() int        { return c.PortBase + portPrometheus }
func (c *Config) grafanaPort() int           { return c.PortBase + portGrafana }
func (c *Config) nodePort(number int) int    { return c.operatorPort(number, portNode) }
func (c *Config) sequencerPort(op int) int   { return c.operatorPort(op, portSequencer) }
func (c *Config) metricsPort(op int) int     { return c.operatorPort(op, portMetrics) }
func (c *Config) enginePort(op, nth int) int { return c.operatorPort(op, portEngines+nth) }
func (c *Config) operatorPort(op, at int) int {
	return c.PortBase + portOperators + (op-1)*portStride + at
}

// published are all ports of a layout with what listens there.
func (l *layout) published() map[int]string {
	out := map[int]string{l.l1Port(): "L1", l.beaconPort(): "L1's beacon API"}
	for _, m := range l.Members {
		maps.Copy(out, l.publishedBy(m.Number))
	}
	return out
}

// publishedBy are those of one operator.
func (l *layout) publishedBy(number int) map[int]string {
	out := map[int]string{
		l.nodePort(number):      fmt.Sprintf("op-node of operator %d", number),
		l.sequencerPort(number): fmt.Sprintf("sharedseq of operator %d", number),
		l.metricsPort(number):   fmt.Sprintf("metrics of operator %d", number),
	}
	for i, id := range l.ChainIDs {
		out[l.enginePort(number, i)] = fmt.Sprintf("op-geth of operator %d, chain %d", number, id)
	}
	return out
}

// portsFree says which of the ports are taken.
func portsFree(ports map[int]string) error {
	var errs []error
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		of := ports[port]
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			errs = append(errs, fmt.Errorf("port %d, for %s, is in use: stop what listens there, or choose other ports with PORT_BASE", port, of))
			continue
		}
		if err != nil {
			return fmt.Errorf("port %d, for %s: %w", port, of, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}
