#!/usr/bin/env bash
# Tests the alerts with promtool: the one in PATH, else the one of Debian's package, unpacked
# to bin/. Without either it says so.
set -euo pipefail
tool=$(command -v promtool || true)
if [ -z "$tool" ] && [ -x bin/promtool ]; then
  tool=bin/promtool
fi
if [ -z "$tool" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  echo "test-alerts: unpacking promtool of Debian's package prometheus to bin/" >&2
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  if (cd "$dir" && apt-get download prometheus >&2 && dpkg-deb -x prometheus_*.deb .); then
    mkdir -p bin
    cp "$dir/usr/bin/promtool" bin/promtool
    tool=bin/promtool
  fi
fi
if [ -z "$tool" ]; then
  echo "test-alerts: SKIPPED: there is no promtool (Debian: apt-get install prometheus)" >&2
  exit 0
fi
"$tool" check config ops/prometheus/prometheus.yaml
"$tool" test rules ops/prometheus/alerts_test.yaml
