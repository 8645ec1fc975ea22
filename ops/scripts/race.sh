#!/usr/bin/env bash
# Runs system tests under the race detector and counts the races in which one of the two
# accesses is made by code of ours. Upstream's own code has races of its own; those are
# counted too, and do not fail the run.
#
#   race.sh [go test arguments]
set -euo pipefail
out=build/race
rm -rf "$out"
mkdir -p "$out"
GORACE="log_path=$PWD/$out/report exitcode=0 halt_on_error=0" \
  go test -race -timeout 40m "${@:--run=TestShared/lockstep|TestL1Reorg}" ./op-e2e/system
cat "$out"/report.* 2>/dev/null >"$out/all" || true
# The first frame below each "… at 0x… by …" line is where the access is.
awk '
  /^WARNING: DATA RACE/ { all++; ours = 0 }
  /^(Read|Write|Previous read|Previous write|Atomic).* at 0x/ { access = 1; next }
  access && /^  [^ ]/ { if ($1 ~ /op-shared-sequencer\/op-shared-sequencer\//) ours = 1; access = 0 }
  /^==================/ { if (ours) { mine++; ours = 0 } }
  END { printf "race: %d races, %d with an access of ours\n", all, mine; exit mine > 0 }
' "$out/all"
