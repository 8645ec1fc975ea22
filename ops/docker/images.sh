#!/usr/bin/env bash
# Makes the images, FROM scratch, from static binaries that are built here, outside docker:
# nothing is pulled.
#
#   images.sh build           all images, tagged op-shared-sequencer/<name>:$TAG
#   images.sh binaries <dir>  their contexts only, in <dir>; needs no docker
#   images.sh check           builds everything twice and compares: binaries and image layers
set -euo pipefail
images=(op-node op-geth op-batcher op-proposer devnet)
go=${GO:-go}
tag=${TAG:-dev}
tree=build/upstream/op-geth
# All that a build depends on beside the sources. Files get the time of the commit.
commit=${GIT_COMMIT:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
date=$(date -u -d "@$epoch" +%Y%m%d)
version=$(sed -n 's/^\tVersion *= "\(.*\)"$/\1/p' op-node/cmd/main.go)
export CGO_ENABLED=0 GOOS=linux GOFLAGS="-trimpath -buildvcs=false ${GOFLAGS:-}" SOURCE_DATE_EPOCH=$epoch

# link <output> <ldflags> <package>
link() { "$go" build -ldflags "-s -w $2" -o "$1" "$3"; }

binaries() {
  local out=$1 optimism=github.com/ethereum-optimism/optimism name
  local upstream
  upstream=$(GOWORK=off "$go" list -m -f '{{.Version}}' $optimism)
  local theirs="-X main.Version=$upstream -X main.GitCommit=$commit -X main.GitDate=$date"
  local health="-X main.version=$version -X main.commit=$commit"
  # What is there and up to date is not linked again.
  for name in "${images[@]}"; do mkdir -p "$out/$name/bin"; done
  link "$out/op-node/bin/op-node" "-X main.Version=$version -X main.GitCommit=$commit -X main.GitDate=$date" ./op-node/cmd
  # Where op-node runs there is what its operator uses: docker exec … op-shared-sequencer status
  link "$out/op-node/bin/op-shared-sequencer" "-X main.Version=$version -X main.GitCommit=$commit -X main.GitDate=$date" ./op-shared-sequencer/cmd
  link "$out/devnet/bin/devnet" "-X main.Version=$version -X main.GitCommit=$commit -X main.GitDate=$date" ./op-e2e/cmd/devnet
  link "$out/op-batcher/bin/op-batcher" "$theirs" $optimism/op-batcher/cmd
  link "$out/op-proposer/bin/op-proposer" "$theirs" $optimism/op-proposer/cmd
  local geth=github.com/ethereum/go-ethereum/internal/version
  (cd "$tree" && GOWORK=off "$go" build -ldflags "-s -w -X $geth.gitCommit=$commit -X $geth.gitDate=$date" \
    -o "$OLDPWD/$out/op-geth/bin/op-geth" ./cmd/geth)
  link "$out/healthcheck" "$health" ./ops/docker/healthcheck
  GOOS= "$go" run ./ops/docker/roots >"$out/roots.pem"
  for name in "${images[@]}"; do cp "$out/healthcheck" "$out/$name/bin/"; done
  for name in op-node op-geth op-batcher op-proposer; do
    install -D -m 0644 "$out/roots.pem" "$out/$name/etc/ssl/certs/ca-certificates.crt"
  done
  for name in op-node op-geth devnet; do mkdir -p "$out/$name/data"; done
  mkdir -p "$out/op-node/tmp" # check-config's
  # Modes, owners and times are part of a layer, those of directories too, which COPY would make with the time of the
  # build: so what an image holds is an archive.
  for name in "${images[@]}"; do
    find "$out/$name" -type d -exec chmod 0755 {} +
    find "$out/$name" -type f -path '*/bin/*' -exec chmod 0755 {} +
    mkdir -p "$out/contexts/$name"
    archive "$out/$name" "$out/contexts/$name/root.tar" "$epoch"
  done
}

# archive <directory> <file> <time>: root owns it all but data, from which a volume takes its owner, and tmp.
archive() {
  local flags=(--sort=name --format=ustar --numeric-owner --mtime="@$3" -C "$1")
  (cd "$1" && ls -d bin etc 2>/dev/null || true) | tar "${flags[@]}" --owner=0 --group=0 -cf "$2.tmp" -T -
  local name
  for name in data tmp; do
    [ ! -d "$1/$name" ] || tar "${flags[@]}" --owner=65532 --group=65532 -rf "$2.tmp" "$name"
  done
  # What is the same keeps its place in docker's cache.
  cmp -s "$2.tmp" "$2" && rm "$2.tmp" || mv "$2.tmp" "$2"
}

# image <contexts> <name> <tag> [flags of docker build]
image() {
  local contexts=$1 name=$2 tag=$3
  shift 3
  # Without BuildKit docker warns that its builder is old; with it SOURCE_DATE_EPOCH is taken from the arguments.
  docker build --quiet "$@" --build-arg "VERSION=$version" --build-arg "COMMIT=$commit" --build-arg "SOURCE_DATE_EPOCH=$epoch" \
    -f "ops/docker/$name.Dockerfile" -t "op-shared-sequencer/$name:$tag" "$contexts/contexts/$name" 2>build/images.log >/dev/null ||
    { cat build/images.log >&2; return 1; }
  echo "images: op-shared-sequencer/$name:$tag"
}

layers() { docker image inspect -f '{{json .RootFS.Layers}} {{json .Config.User}} {{json .Config.Entrypoint}}' "op-shared-sequencer/$1:$2"; }

case ${1:-} in
build)
  binaries build/images
  for name in "${images[@]}"; do image build/images "$name" "$tag"; done
  ;;
binaries)
  binaries "${2:?images.sh binaries: expected a directory}"
  ;;
check)
  failed=0
  rm -rf build/images.check
  for i in 1 2; do
    # The second time without what the first one left, other than downloads.
    [ $i = 1 ] || { GOCACHE=$PWD/build/images.check/cache && export GOCACHE; }
    binaries "build/images.check/$i"
    for name in "${images[@]}"; do image "build/images.check/$i" "$name" "check-$i" --no-cache; done
  done
  for name in "${images[@]}"; do
    for file in build/images.check/1/"$name"/bin/*; do
      cmp "$file" "build/images.check/2/${file#build/images.check/1/}" || failed=1
    done
    if [ "$(layers "$name" check-1)" = "$(layers "$name" check-2)" ]; then
      echo "images: $name is the same twice: $(layers "$name" check-1)"
    else
      echo "images: $name differs: $(layers "$name" check-1) and $(layers "$name" check-2)" >&2
      failed=1
    fi
    docker image rm "op-shared-sequencer/$name:check-1" "op-shared-sequencer/$name:check-2" >/dev/null
  done
  rm -rf build/images.check
  exit $failed
  ;;
*)
  echo "images.sh: expected build, binaries <dir> or check" >&2
  exit 2
  ;;
esac
