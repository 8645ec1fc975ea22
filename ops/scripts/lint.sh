#!/usr/bin/env bash
# golangci-lint in a fixed version, built with this machine's Go and kept in bin/.
set -euo pipefail
version=v2.15.0
tool=bin/golangci-lint-$version
if [ ! -x "$tool" ]; then
  echo "lint: building golangci-lint $version" >&2
  GOWORK=off GOBIN="$PWD/bin" go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
  mv bin/golangci-lint "$tool"
fi
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
  printf 'lint: not gofmt-ed:\n%s\n' "$unformatted" >&2
  exit 1
fi
"$tool" run ./op-node/... ./op-shared-sequencer/... ./op-e2e/... ./ops/... ./packages/...
