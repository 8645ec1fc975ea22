// Package prometheus holds the alerts. Its tests hold them, the dashboard and the runbook
// against what the shared sequencer exports.
package prometheus

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/ethereum-optimism/optimism/op-supernode/supernode/resources"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/metrics"
)

const (
	alertsFile    = "alerts.yaml"
	testsFile     = "alerts_test.yaml"
	runbookFile   = "../../docs/runbook.md"
	dashboardFile = "../grafana/dashboards/shared-sequencer.json"
)

type alert struct {
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) map[string]alert {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	data, err := os.ReadFile(alertsFile)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(data, &file))
	out := map[string]alert{}
	for _, g := range file.Groups {
		for _, a := range g.Rules {
			require.NotContains(t, out, a.Alert)
			out[a.Alert] = a
		}
	}
	require.NotEmpty(t, out)
	return out
}

// exported are the labels of everything that op-node serves, by name.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{"up": nil}
	for _, d := range metrics.New(nil).Document() {
		out[d.Name] = d.Labels
		if d.Type == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				out[d.Name+suffix] = append(slices.Clone(d.Labels), "le")
			}
		}
	}
	desc := regexp.MustCompile(`fqName: "([^"]*)".*variableLabels: \{([^}]*)\}`)
	for _, c := range []prometheus.Collector{
		resources.NewSupernodeMetrics().Registry().(prometheus.Collector), // upstream's, beside ours
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		ch := make(chan *prometheus.Desc, 1000)
		c.Describe(ch)
		close(ch)
		for d := range ch {
			m := desc.FindStringSubmatch(d.String())
			require.NotNil(t, m, d.String())
			out[m[1]] = strings.Split(m[2], ",")
		}
	}
	require.Contains(t, out, "supernode_interop_invalidations_total")
	require.Contains(t, out, "process_resident_memory_bytes")
	return out
}

var (
	grouping   = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	window     = regexp.MustCompile(`\[[^\]]*\]`)
	selector   = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"`)
	identifier = regexp.MustCompile(`\b[a-zA-Z_:][a-zA-Z0-9_:]*(\s*\()?`)
	keywords   = []string{"and", "or", "unless", "bool", "offset"}
)

// used are the metrics in an expression with the labels that it selects by.
func used(expr string) map[string][]string {
	out := map[string][]string{}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		out[m[1]] = append(out[m[1]], nil...)
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			out[m[1]] = append(out[m[1]], l[1])
		}
	}
	rest := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(expr, "")
	rest = window.ReplaceAllString(grouping.ReplaceAllString(rest, ""), "")
	for _, id := range identifier.FindAllString(rest, -1) {
		if !strings.HasSuffix(id, "(") && !slices.Contains(keywords, id) {
			out[id] = append(out[id], nil...)
		}
	}
	return out
}

func checkExpr(t *testing.T, where, expr string, have map[string][]string) {
	t.Helper()
	names := used(expr)
	require.NotEmpty(t, names, "%s: %s", where, expr)
	for name, labels := range names {
		known, ok := have[name]
		require.True(t, ok, "%s: there is no metric %s", where, name)
		for _, l := range labels {
			require.Contains(t, append([]string{"instance", "job"}, known...), l, "%s: label of %s", where, name)
		}
	}
}

func TestUsed(t *testing.T) {
	require.Equal(t, map[string][]string{"a_total": {"x", "y"}, "b": nil}, used(
		`sum by (k, le) (rate(a_total{x="1", y=~"k|l"}[5m])) / on (k) group_left (z) b > 0.5 and time() - b offset 5m < 1`))
}

func TestAlertsUseWhatIsExported(t *testing.T) {
	have := exported(t)
	for name, a := range alerts(t) {
		checkExpr(t, name, a.Expr, have)
	}
}

func TestDashboardUsesWhatIsExported(t *testing.T) {
	data, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var d struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(data, &d))
	have, shown := exported(t), map[string]bool{}
	for _, p := range d.Panels {
		require.Equal(t, p.Type != "row", len(p.Targets) > 0, p.Title)
		for _, q := range p.Targets {
			checkExpr(t, p.Title, q.Expr, have)
			for name := range used(q.Expr) {
				shown[name] = true
			}
		}
	}
	require.Greater(t, len(shown), 50)
}

// Each alert says how grave it is and has an entry in the runbook with all parts, and there
// is no entry of another.
func TestRunbook(t *testing.T) {
	data, err := os.ReadFile(runbookFile)
	require.NoError(t, err)
	entries := map[string]string{}
	for _, part := range strings.Split("\n"+string(data), "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		entries[title] = body
	}
	all := alerts(t)
	require.ElementsMatch(t, slices.Collect(maps.Keys(all)), slices.Collect(maps.Keys(entries)))
	for name, a := range all {
		require.Contains(t, []string{"critical", "warning"}, a.Labels["severity"], name)
		require.NotEmpty(t, a.Annotations["summary"], name)
		require.Equal(t, "docs/runbook.md#"+strings.ToLower(name), a.Annotations["runbook_url"], name)
		for _, part := range []string{"**Means.**", "**Confirm.**", "**Do.**", "**Over when.**"} {
			require.Contains(t, entries[name], part, name)
		}
	}
}

// Every alert is tested with promtool.
func TestAlertsAreTested(t *testing.T) {
	data, err := os.ReadFile(testsFile)
	require.NoError(t, err)
	for name := range alerts(t) {
		require.Regexp(t, `alertname: `+name+`\b`, string(data))
	}
}
