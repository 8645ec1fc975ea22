#!/usr/bin/env bash
# Runs every fuzz target of our packages for the given time each.
set -euo pipefail
time=${1:-10s}
grep -rlE '^func Fuzz[A-Z]' --include='*_test.go' op-shared-sequencer op-node/config ops | while read -r file; do
  grep -oE '^func Fuzz[A-Za-z0-9]+' "$file" | awk '{print $2}' | while read -r target; do
    # Minimising an input takes longer than a short run has.
    go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x
  done
done
