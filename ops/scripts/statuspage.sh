#!/usr/bin/env bash
# The browser test of the status page. Its npm packages are installed once for each lock file;
# the browser is the system's, or Debian's where it can be installed.
set -euo pipefail
kit=packages/statuspage-e2e
work=build/statuspage-e2e

find_browser() {
  if [ -n "${CHROMIUM:-}" ]; then echo "$CHROMIUM"; return; fi
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name"; then return; fi
  done
  return 1
}

if ! browser=$(find_browser); then
  if [ "$(id -u)" = 0 ] && grep -q '^ID=debian' /etc/os-release 2>/dev/null; then
    echo "statuspage: installing Debian's chromium, once"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update && apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends chromium || true
  fi
  if ! browser=$(find_browser); then
    echo "statuspage: SKIPPED: there is no Chromium. Install it (Debian: apt-get install chromium), or set CHROMIUM to its path."
    exit 0
  fi
fi

mkdir -p "$work"
cp "$kit"/package.json "$kit"/package-lock.json "$kit"/.npmrc "$kit"/statuspage.test.mjs "$work"
lock=$(sha256sum "$kit/package-lock.json" | cut -d' ' -f1)
if [ "$(cat "$work/installed" 2>/dev/null)" != "$lock" ]; then
  echo "statuspage: installing npm packages"
  (cd "$work" && npm ci --ignore-scripts --no-progress)
  echo "$lock" >"$work/installed"
fi

echo "statuspage: testing with $("$browser" --version 2>/dev/null || echo "$browser"), on a devnet of ${OPERATORS:-4} operators"
root=$PWD
cd "$work"
ROOT=$root CHROMIUM=$browser exec node --test --test-reporter=spec statuspage.test.mjs
