package supernode

import "github.com/prometheus/client_golang/prometheus"

// AddMetrics serves the metrics of what runs beside the virtual nodes on the
// supernode's own metrics endpoint. Its series must not collide with the nodes'.
func (s *Supernode) AddMetrics(g prometheus.Gatherer) { s.metricsFanIn.AddGatherer(g) }
