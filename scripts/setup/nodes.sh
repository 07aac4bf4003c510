#!/usr/bin/env bash
# What every node must know of the registry: authority and hosts entry, written by a DaemonSet; or taken back. Options: --help.

# shellcheck source=scripts/setup/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

selector=app.kubernetes.io/name=edge-registry,app.kubernetes.io/component=node-setup
# Nodes that are asked, at a second each, what they want of people; what one lacks, others lack too.
asked=20
# Seconds for one that does not answer.
patience=15

# The folders of the engine that the nodes report, for REGISTRY_NODE_FOLDERS=auto.
find_folders() {
  local engines
  [ "$REGISTRY_NODE_FOLDERS" = auto ] || return 0
  engines=$(kube get nodes -o 'jsonpath={range .items[*]}{.status.nodeInfo.containerRuntimeVersion}{"\n"}{end}' |
    sed -e 's/^containerd:.*k3s.*/k3s/' -e 's/:.*//' | sort -u)
  case $engines in
    k3s) REGISTRY_NODE_FOLDERS='/etc/rancher /var/lib/rancher/k3s/agent/etc/containerd' ;;
    containerd) REGISTRY_NODE_FOLDERS=/etc/containerd ;;
    docker) REGISTRY_NODE_FOLDERS=/etc/docker ;;
    cri-o) REGISTRY_NODE_FOLDERS=/etc/containers ;;
    *) REGISTRY_NODE_FOLDERS=/etc ;; # nodes of several kinds
  esac
  export REGISTRY_NODE_FOLDERS
}

# The files that nodes will have; what is there already, and by whom, each node finds out for itself.
tell_node_files() {
  local folder clients=() name=()
  for folder in $REGISTRY_NODE_FOLDERS; do
    case $folder in
      /etc/rancher*) clients+=(--for k3s) ;;
      /etc/containerd) clients+=(--for containerd) ;;
      /etc/docker) clients+=(--for docker) ;;
      /etc/containers) clients+=(--for podman) ;;
      /etc) clients+=(--for containerd --for docker --for podman) ;;
    esac
  done
  printf 'would write on every node: /var/lib/edge-registry/node-setup.json\n'
  [ ${#clients[@]} -gt 0 ] || return 0
  if [ "${REGISTRY_NAME:?}" != - ]; then
    name=(--host "$REGISTRY_NAME:$REGISTRY_PORT" --address "$REGISTRY_NAME=$REGISTRY_ADDRESS")
  fi
  edge node-config "${clients[@]}" --host "$REGISTRY_ADDRESS:$REGISTRY_PORT" "${name[@]}" --ca "$work/certs/ca.crt" --json |
    program objects.py paths | sed 's/^/would write on every node: /'
}

# What nodes want of people, such as a line in containerd's own configuration: each sentence once, with the nodes' names.
tell_wishes() {
  local pod node status reason wish pods=(-n "$REGISTRY_NODES_NAMESPACE" get pods -l "$selector" --field-selector status.phase=Running)
  kube "${pods[@]}" -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}' >"$scratch/pods" || return 0
  head -n "$asked" "$scratch/pods" | while read -r pod node; do
    status=0
    timeout "$patience" kubectl ${REGISTRY_CONTEXT:+--context "$REGISTRY_CONTEXT"} -n "$REGISTRY_NODES_NAMESPACE" \
      exec "$pod" -c node-setup -- edge-registry node-setup status --root /node \
      --config /etc/edge-registry/nodes/node-setup.yaml </dev/null >/dev/null 2>"$scratch/said" || status=$?
    tr -d '\000-\011\013-\037\177' <"$scratch/said" >"$scratch/wishes"
    # What kubectl itself cannot do at one node, it cannot do at the next one either.
    if [ "$status" != 0 ] && ! grep -q '^command terminated with' "$scratch/wishes"; then
      reason=$(tail -n 1 "$scratch/wishes")
      say "what nodes lack could not be asked (node $node): ${reason:-no answer within $patience seconds}"
      break
    fi
    sed -e '/^command terminated with/d' -e "s/^/$node\t/" "$scratch/wishes"
  done | awk -F '\t' '
    { if ($2 in nodes) nodes[$2] = nodes[$2] ", " $1; else { order[++count] = $2; nodes[$2] = $1 } }
    END { for (i = 1; i <= count; i++) print nodes[order[i]] ": " order[i] }' | while read -r wish; do say "node $wish"; done
}

install() {
  local objects=$scratch/objects.yaml
  need_cluster
  [ -s "$work/certs/ca.crt" ] || die "$state/certs/ca.crt is missing: run scripts/setup/certificates.sh first"
  find_way_in
  find_folders
  program objects.py nodes >"$objects"
  note "setting cluster $REGISTRY_CLUSTER"
  note "setting node-folders $REGISTRY_NODE_FOLDERS"
  note "setting image $REGISTRY_IMAGE"
  # Folders of the node are barred at every other level of pod security.
  need_namespace nodes "$REGISTRY_NODES_NAMESPACE" pod-security.kubernetes.io/enforce=privileged
  check_objects "$objects"
  if dry_run; then
    put_objects nodes "$objects" >"$scratch/told"
    cat "$scratch/told"
    if [ -s "$scratch/told" ]; then tell_node_files; fi
    return
  fi
  put_objects nodes "$objects"
  if has_namespace "$REGISTRY_NAMESPACE"; then save_record; fi
  await daemonset/edge-registry-nodes "$REGISTRY_NODES_NAMESPACE" "$selector"
  tell_wishes
}

# Lets the DaemonSet take back what it wrote on every node, waits for that, and then removes it.
uninstall() {
  local namespace found
  if [ -z "$(notes 'nodes')" ]; then return; fi
  need_cluster
  namespace=$(notes 'nodes object' | awk '$1 == "DaemonSet" {print $2}')
  found=
  if [ -n "$namespace" ] && has_namespace "$namespace"; then
    found=$(kube -n "$namespace" get daemonset -l "$label=$manager" --field-selector metadata.name=edge-registry-nodes -o name)
  fi
  if [ -n "$found" ]; then
    doing "take back what was written on every node"
    if ! dry_run; then
      REGISTRY_NODE_FOLDERS=$(notes 'setting node-folders' | tail -n 1)
      REGISTRY_IMAGE=$(notes 'setting image' | tail -n 1)
      REGISTRY_NODES_NAMESPACE=$namespace
      export REGISTRY_NODE_FOLDERS REGISTRY_IMAGE REGISTRY_NODES_NAMESPACE
      program objects.py nodes-removed >"$scratch/removed.yaml"
      apply -f "$scratch/removed.yaml" >/dev/null
      await daemonset/edge-registry-nodes "$namespace" "$selector"
    fi
  fi
  take_objects nodes
  take_namespace nodes "$(notes 'nodes namespace' | head -n 1)"
}

begin "$@"
if uninstalling; then uninstall; else install; fi
