#!/usr/bin/env bash
# Sets up the registry in a cluster: bucket, certificates, deployment, nodes; or takes all of that back. Options: --help.

# shellcheck source=scripts/setup/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup/cluster.sh"

# Runs the parts in the order of the arguments.
run_parts() {
  local part
  for part in "$@"; do
    case $part in
      bucket | certificates | deploy | nodes) ;;
      *) die "there is no part $part; there are bucket, certificates, deploy and nodes" ;;
    esac
  done
  for part in "$@"; do
    "$parts/$part.sh" || die "the part $part failed, see above; what was made until then stays, and a repetition goes on there"
  done
}

# Where the registry listens, and the lines that use it.
tell() {
  local address=$REGISTRY_ADDRESS name user=$REGISTRY_USER
  if [ "$REGISTRY_EXPOSE" = LoadBalancer ]; then
    name=$(kube -n "$REGISTRY_NAMESPACE" get service edge-registry -o \
      'jsonpath={.status.loadBalancer.ingress[0].ip}{.status.loadBalancer.ingress[0].hostname}')
    address=${name:-$address}
  fi
  name=$address:$REGISTRY_PORT
  cat <<END

The registry listens on https://$name
Docker on another machine trusts it after:
  sudo install -D -m 644 $state/certs/ca.crt /etc/docker/certs.d/$name/ca.crt
Other clients: edge-registry node-config --for containerd|k3s|podman|crio|buildkit --host $name --ca $state/certs/ca.crt

  docker login $name --username $user
  docker tag hello-world $name/hello-world
  docker push $name/hello-world
  docker pull $name/hello-world

Pods pull with a secret: ${0} --pull-secrets NAMESPACE, with the password in REGISTRY_PASSWORD.
END
}

begin "$@"
read -ra wanted <<<"$REGISTRY_PARTS"
if uninstalling; then
  turned=()
  for part in "${wanted[@]}"; do turned=("$part" "${turned[@]}"); done
  run_parts "${turned[@]}"
  if dry_run; then exit; fi
  tidy
  if [ -f "$record" ]; then say "what is left stands in $record"; else say "nothing is left"; fi
  exit
fi
# What the parts rely on is found out before the first of them makes anything.
if [[ " ${wanted[*]} " == *" deploy "* || " ${wanted[*]} " == *" nodes "* ]]; then
  need_cluster
  find_way_in
fi
run_parts "${wanted[@]}"
if ! dry_run && [[ " ${wanted[*]} " == *" deploy "* ]]; then tell; fi
