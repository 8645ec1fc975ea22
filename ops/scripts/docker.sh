#!/usr/bin/env bash
# Runs a command that needs a docker daemon. Where there is none it says why, and what to do.
#
#   docker.sh <command> …           fails without a daemon
#   docker.sh --optional <command>  says that it was skipped, and succeeds
#
# START_DOCKERD=1 has it start dockerd when none runs, if it is root and dockerd is installed,
# and stop that dockerd when the command has ended. DOCKERD_FLAGS are its flags. Without
# START_DOCKERD no daemon is ever started.
set -euo pipefail
optional=
if [ "${1:-}" = --optional ]; then
  optional=1
  shift
fi
[ $# -gt 0 ] || { echo "docker.sh: expected a command" >&2; exit 2; }

missing() {
  if [ -n "$optional" ]; then
    echo "skipped: no docker daemon: $1"
    exit 0
  fi
  echo "no docker daemon: $1" >&2
  exit 1
}

command -v docker >/dev/null || missing "the docker command is not installed (Debian: apt-get install docker.io docker-compose)"
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
  missing "neither docker compose nor docker-compose is installed (Debian: apt-get install docker-compose)"
if docker version >/dev/null 2>&1; then
  exec "$@"
fi
reason=$(docker version 2>&1 >/dev/null | tail -n 1) || true # of docker, which fails here
[ -n "${START_DOCKERD:-}" ] || missing "$reason; start it, or set START_DOCKERD=1 to have one started and stopped here"
[ "$(id -u)" = 0 ] || missing "$reason; START_DOCKERD is for root"
command -v dockerd >/dev/null || missing "$reason; dockerd is not installed (Debian: apt-get install docker.io)"

mkdir -p build
log=$PWD/build/dockerd.log
# shellcheck disable=SC2086 # flags are words
dockerd ${DOCKERD_FLAGS:-} >"$log" 2>&1 &
daemon=$!
stop() {
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
}
trap stop EXIT
until docker version >/dev/null 2>&1; do
  kill -0 "$daemon" 2>/dev/null || missing "dockerd ended at its start, see $log: $(tail -n 1 "$log")"
  sleep 0.2
done
"$@"
