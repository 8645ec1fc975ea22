#!/usr/bin/env bash
# Builds upstream's op-node and op-geth without our patches, of the versions that ours is built
# from, to build/stock: what benchmarks compare with.
set -euo pipefail
out=$PWD/build/stock
mkdir -p "$out"
go=${GO:-go}
list() { GOWORK=off "$go" list -m -f "{{.$1}}" "$2"; }
optimism=github.com/ethereum-optimism/optimism geth=github.com/ethereum/go-ethereum
version=$(list Version $optimism)
# The module lacks an archive that upstream's own build fetches: ours is generated (ops/upstream).
if [ "$(cat "$out/version" 2>/dev/null)" != "$version" ]; then
  rm -rf "$out/optimism"
  cp -r "$(list Dir $optimism)" "$out/optimism"
  chmod -R u+w "$out/optimism"
  cp build/upstream/optimism/op-core/superchain/superchain-configs.zip* "$out/optimism/op-core/superchain/"
  echo "$version" >"$out/version"
fi
printf 'go 1.26.0\nuse ../..\nreplace %s => ./optimism\n' $optimism >"$out/go.work"
echo "stock: op-node $version"
GOWORK=$out/go.work "$go" build -o "$out/op-node" $optimism/op-node/cmd
# op-geth stops short of Karst, which chains of this version of op-node have: it gets those rules, and nothing else of ours.
echo "stock: op-geth $(list Replace.Version $geth) with the rules of Karst"
GOWORK=off "$go" run ./ops/upstream verifier "$out/op-geth-tree"
(cd "$out/op-geth-tree" && GOWORK=off "$go" build -o "$out/op-geth" ./cmd/geth)
printf '{"optimism":"%s","opGeth":"%s"}\n' "$version" "$(list Replace.Version $geth)" >"$out/versions.json"
