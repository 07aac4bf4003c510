#!/usr/bin/env bash
# Builds a Docker daemon that is newer than Debian's, 29.8, from its Go module with the checksums this brings, into the folder
# docker of the folder $1, beside what `newer.sh` builds. Takes three minutes once; Go must be there.

set -euo pipefail
target=${1:?usage: newer_docker.sh FOLDER}
# Modules are numbered apart from the daemon; this one was tagged with 29.8.
module=github.com/moby/moby/v2@v2.0.0-beta.24
mkdir -p "$target"
target=$(cd "$target" && pwd)
# One at a time: a second one waits, and finds everything done.
exec 9>"$target/.lock"
flock 9
if [ "$(cat "$target/docker/version" 2>/dev/null)" = "$module" ]; then exit; fi
trap 'rm -rf "$target/.new-docker"' EXIT
rm -rf "$target/.new-docker"
mkdir "$target/.new-docker"
source=$(cd "$target" && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
version="-X github.com/moby/moby/v2/dockerversion.Version=${module##*@}"
(cd "$source" && CGO_ENABLED=0 nice -n 5 go build -trimpath -ldflags "-s -w $version" -o "$target/.new-docker/" ./cmd/dockerd)
echo "$module" >"$target/.new-docker/version"
rm -rf "$target/docker"
mv "$target/.new-docker" "$target/docker"
