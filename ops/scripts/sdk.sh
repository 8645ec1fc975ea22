#!/usr/bin/env bash
# Tests the TypeScript SDK. Its npm packages are installed once for each lockfile.
set -euo pipefail
cd packages/sdk
lock=$(cat package.json package-lock.json .npmrc | git hash-object --stdin)
if [ "$(cat node_modules/.lock 2>/dev/null)" != "$lock" ]; then
  npm ci --ignore-scripts
  echo "$lock" >node_modules/.lock
fi
npm test
