#!/usr/bin/env bash
# Builds what is missing of a small Kubernetes into the folder $1: its programs and CoreDNS from their Go modules, two
# C programs for pods, and the definitions of optional objects. Takes minutes once; Go and gcc must be there.

set -euo pipefail
target=${1:?usage: build.sh FOLDER}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$target"
target=$(cd "$target" && pwd)
# One at a time: a second one waits, and finds everything done.
exec 9>"$target/.lock"
flock 9
# What is half built is not there yet.
new=$target/.new
rm -rf "$new"
mkdir "$new"
trap 'rm -rf "$new"' EXIT
programs=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)
# Nothing here is worth slowing down what else runs on the machine.
gentle=(nice -n 5)

wanted=()
for name in "${programs[@]}"; do
  if [ ! -x "$target/$name" ]; then wanted+=("k8s.io/kubernetes/cmd/$name"); fi
done
if [ ${#wanted[@]} -gt 0 ]; then
  (cd "$here" && "${gentle[@]}" go build -ldflags "-s -w" -o "$new/" "${wanted[@]}")
fi
if [ ! -x "$target/coredns" ]; then
  (cd "$here/dns" && "${gentle[@]}" go build -ldflags "-s -w" -o "$new/coredns" .)
fi
for name in pause hello; do
  if [ ! -x "$target/$name" ]; then gcc -static -Os -s -Wall -o "$new/$name" "$here/$name.c"; fi
done
find "$new" -type f -exec mv -t "$target" {} +

# The optional objects of the chart, as their projects define them: module, then files.
definitions() {
  local module=$1 file folder=
  shift
  for file in "$@"; do
    if [ -e "$target/crds/${file##*/}" ]; then continue; fi
    folder=${folder:-$(cd "$target" && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')}
    install -D -m 644 "$folder/$file" "$target/crds/${file##*/}"
  done
}
definitions sigs.k8s.io/gateway-api@v1.3.0 config/crd/standard/gateway.networking.k8s.io_{gateways,httproutes}.yaml
definitions github.com/prometheus-operator/prometheus-operator@v0.85.0 \
  example/prometheus-operator-crd/monitoring.coreos.com_{prometheusrules,servicemonitors}.yaml
definitions github.com/cert-manager/cert-manager@v1.19.1 deploy/crds/cert-manager.io_certificates.yaml
