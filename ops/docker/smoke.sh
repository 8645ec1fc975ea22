#!/usr/bin/env bash
# Makes the images, brings a devnet up, checks it and removes it: build/reports/compose.json.
# It has a directory, a project and ports of its own, beside a devnet that may be running.
set -euo pipefail
export TAG=${TAG:-test} DEVNET_COMPOSE_TAG=${TAG:-test}
export DEVNET_COMPOSE_DIR=build/compose.test DEVNET_COMPOSE_PROJECT=${PROJECT:-sharedseq-test} DEVNET_COMPOSE_PORT_BASE=${PORT_BASE:-19500}
chains=${CHAINS:-2} operators=${OPERATORS:-3}
report=$PWD/build/reports/compose.json
rm -f "$report"
ops/docker/images.sh build
bin/devnet compose down >/dev/null # of a run that was cut off
trap 'bin/devnet compose down' EXIT
if ! { bin/devnet compose up --chains "$chains" --operators "$operators" && bin/devnet compose smoke --report "$report"; }; then
  # What is needed to understand it, before it is removed.
  mkdir -p build/reports
  bin/devnet compose status || true
  bin/devnet compose logs --tail 400 >build/reports/compose.log 2>&1 || true
  echo "compose: failed; what the containers logged is in build/reports/compose.log" >&2
  exit 1
fi
