#!/usr/bin/env bash
# Benchmarks against stock. Environment: QUICK, ROUNDS, ONLY (scenarios, separated by commas).
#
#   bench.sh              measure, to build/reports/bench.json, and make a page of it beside it
#   bench.sh page <dir>   make the page from it: <dir>/benchmarks.md, <dir>/images
set -euo pipefail
go=${GO:-go}
root=$PWD reports=$PWD/build/reports

page() {
  mkdir -p "$1/images"
  (cd op-e2e/bench/page && GOWORK=off "$go" run . -in "$reports/bench.json" -out "$1/benchmarks.md" -images "$1/images")
}

if [ "${1:-}" = page ]; then
  page "$root/${2:?bench.sh page: expected a directory}"
  exit
fi

mkdir -p "$reports"
parts=$reports/bench.parts
rm -rf "$parts"
mkdir -p "$parts"
quick=() flags=() heights=60 most=10
[ -z "${QUICK:-}" ] || { quick=(-quick) flags=(--quick) heights=6 most=4; }
[ -z "${ROUNDS:-}" ] || flags+=(--rounds "$ROUNDS")
only=${ONLY:-all}
wants() { [ "$only" = all ] || [[ ",$only," == *",$1,"* ]]; }

devnet=$only
if wants follower; then
  echo "follower and a slot of 10 MB"
  "$go" test -count 1 -timeout 30m -run TestFollowerReport ./op-e2e/bench -args -report "$parts/follower.json" "${quick[@]}"
fi
if wants operators; then
  echo "operators"
  "$go" test -count 1 -timeout 60m -run TestOperatorsReport ./op-shared-sequencer/rotation/cometbft -args -report "$parts/operators.json" -heights $heights -most $most
fi
# The other scenarios, on devnets.
devnet=$(tr , '\n' <<<"$only" | grep -vx -e all -e follower -e operators | paste -sd, || true)
files=$(find "$parts" -name '*.json' | sort | paste -sd,)
[ "$only" = all ] || [ -n "$devnet" ] || devnet=none
bin/devnet bench "${flags[@]}" --only "$devnet" --merge "$files" --report "$reports/bench.json"
page "$reports/bench"
echo "page: $reports/bench/benchmarks.md"
