#!/usr/bin/env bash
# The authority and the server's certificate for every name of the registry: made, kept, renewed, or taken back. Options: --help.

# shellcheck source=scripts/setup/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

files=(ca.crt ca.key server.crt server.key)

# Every name and address by which clients may call the registry, a line each.
names() {
  local name namespace=$REGISTRY_NAMESPACE
  {
    printf '%s\n' "$REGISTRY_ADDRESS"
    if have_cluster; then
      kube get nodes -o 'jsonpath={range .items[*].status.addresses[*]}{.address}{"\n"}{end}'
    else
      hostname
      # The way to anywhere: addresses of containers come and go, and each would make another certificate.
      ip -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p'
    fi
    printf '%s\n' localhost 127.0.0.1 "edge-registry.$namespace.svc" "edge-registry.$namespace.svc.cluster.local"
    [ "$REGISTRY_NAME" = - ] || printf '%s\n' "$REGISTRY_NAME"
    for name in $REGISTRY_NAMES; do printf '%s\n' "$name"; done
  } | grep -v -e '^$' -e '^fe80:' | awk '!seen[$0]++'
}

install() {
  local name file options=() certs=$work/certs
  if [ ! -e "$certs/ca.crt" ] && [ -z "${REGISTRY_NEW_AUTHORITY:-}" ] &&
    [ -n "$(secret_value "$REGISTRY_NAMESPACE" edge-registry-tls tls.crt)" ]; then
    die "the cluster has a certificate whose authority is not in $state/certs: bring that folder from where it was made," \
      "or make another authority, which all clients must trust anew, with --new-authority"
  fi
  while IFS= read -r name; do options+=(--name "$name"); done < <(names)
  for file in "${files[@]}"; do note "certificates file certs/$file"; done
  edge setup certs --folder "$certs" "${options[@]}" >/dev/null 2>"$scratch/certs" || { cat "$scratch/certs" >&2; exit 1; }
  while IFS= read -r name; do
    case $name in
      'made the authority'* | 'made the certificate'*) doing "${name/#made/make}" ;;
      kept*) say "$name" ;;
    esac
  done < <(sed -n -e "s#${work}/#${state}/#" -e '/^\(made\|kept\) the/p' "$scratch/certs")
}

uninstall() {
  local file
  notes 'certificates file' | while IFS= read -r file; do
    doing "remove $state/$file"
    dry_run && continue
    rm -f -- "${work:?}/$file"
    forget "certificates file $file"
  done
  if ! dry_run && [ -d "$work/certs" ]; then rmdir --ignore-fail-on-non-empty "$work/certs"; fi
}

begin "$@"
if uninstalling; then uninstall; else install; fi
