#!/usr/bin/env bash
# Builds clients that are newer than Debian's, from their Go modules with the checksums these bring, into the folder $1:
# containerd 2, BuildKit, Compose 2 and Docker 29's daemon, each in a folder of its own. Takes minutes once; Go must be there.

set -euo pipefail
target=${1:?usage: newer.sh FOLDER}
mkdir -p "$target"
target=$(cd "$target" && pwd)
# One at a time: a second one waits, and finds everything done.
exec 9>"$target/.lock"
flock 9
trap 'rm -rf "$target/.new"' EXIT

# Builds the packages "$@" of the module $2, whose version is said by the variable $3, into the folder $1.
build() {
  local folder=$target/$1 module=$2 variable=$3 source
  shift 3
  if [ "$(cat "$folder/version" 2>/dev/null)" = "$module" ]; then return; fi
  rm -rf "$target/.new"
  mkdir "$target/.new"
  source=$(cd "$target" && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  (cd "$source" && CGO_ENABLED=0 nice -n 5 go build -trimpath -ldflags "-s -w -X $variable=${module##*@}" -o "$target/.new/" "$@")
  if [ -e "$target/.new/cmd" ]; then mv "$target/.new/cmd" "$target/.new/docker-compose"; fi # called like its folder there
  echo "$module" >"$target/.new/version"
  rm -rf "$folder"
  mv "$target/.new" "$folder"
}

build containerd github.com/containerd/containerd/v2@v2.4.2 github.com/containerd/containerd/v2/version.Version \
  ./cmd/containerd ./cmd/ctr ./cmd/containerd-shim-runc-v2
# Modules of later releases cannot be had from every proxy.
build buildkit github.com/moby/buildkit@v0.29.0 github.com/moby/buildkit/version.Version ./cmd/buildkitd ./cmd/buildctl
build compose github.com/docker/compose/v2@v2.40.3 github.com/docker/compose/v2/internal.Version ./cmd
# Numbered apart from the daemon: what is in it was tagged with 29.8.
build docker github.com/moby/moby/v2@v2.0.0-beta.24 github.com/moby/moby/v2/dockerversion.Version ./cmd/dockerd
