#!/usr/bin/env bash
# Operators of the previous commit and of this one in one set: op-e2e/system, TestMixedVersions.
# The previous commit is built once, beside this tree.
set -euo pipefail
commit=$(git rev-parse --verify --quiet "${PREVIOUS:-HEAD~1}^{commit}") || {
  echo "mixed versions: SKIPPED: there is no ${PREVIOUS:-HEAD~1} here (a shallow clone, or none)"
  exit 0
}
dir=$PWD/build/previous
if [ "$(cat "$dir/commit" 2>/dev/null)" != "$commit" ]; then
  echo "mixed versions: building bin/devnet of $(git log -1 --format='%h %s' "$commit")"
  rm -rf "$dir"
  mkdir -p "$dir/src"
  git archive "$commit" | tar -x -C "$dir/src"
  (cd "$dir/src" && make bin/devnet)
  mv "$dir/src/bin/devnet" "$dir/devnet"
  rm -rf "$dir/src"
  echo "$commit" >"$dir/commit"
fi
DEVNET_PREVIOUS=$dir/devnet exec "${GO:-go}" test -count 1 -timeout 30m -run 'TestMixedVersions$' -v ./op-e2e/system
