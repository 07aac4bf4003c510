# shellcheck shell=bash
# Objects in the cluster: brought there, previewed, awaited, taken back. Sourced by the parts that work on one.

# shellcheck source=scripts/setup/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

label=app.kubernetes.io/managed-by

# Keeps a copy of the record in the cluster, for another machine.
save_record() {
  if dry_run; then
    if ! has_namespace "$REGISTRY_NAMESPACE" ||
      [ -z "$(kube -n "$REGISTRY_NAMESPACE" get configmap "$manager" --ignore-not-found -o name)" ]; then
      printf 'would make ConfigMap %s/%s\n' "$REGISTRY_NAMESPACE" "$manager"
    fi
    return
  fi
  kube -n "$REGISTRY_NAMESPACE" create configmap "$manager" --from-file=record="$record" --dry-run=client -o yaml |
    kube label --local -f - "$label=$manager" -o yaml | apply -f - >/dev/null
}

apply() { kube apply --server-side --force-conflicts --field-manager="$manager" --validate=strict "$@"; }

# The objects of file $1 that are there, a line each: KIND NAMESPACE NAME MANAGER.
present() {
  kube get -f "$1" --ignore-not-found --no-headers -o \
    'custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name,M:.metadata.labels.app\.kubernetes\.io/managed-by' |
    awk '{print $1, $2, $3, $4}'
}

# Makes namespace $2 for part $1 where it is not there; further arguments are labels.
need_namespace() {
  local part=$1 namespace=$2
  shift 2
  if has_namespace "$namespace"; then return; fi
  doing "make namespace $namespace"
  note "$part namespace $namespace"
  dry_run && return
  kube create namespace "$namespace" --dry-run=client -o yaml |
    kube label --local -f - "$label=$manager" "$@" -o yaml | apply -f - >/dev/null
}

# Exports how the registry is reached: REGISTRY_EXPOSE, REGISTRY_NODE, REGISTRY_ADDRESS.
find_way_in() {
  local nodes versions
  nodes=$(kube get nodes -o \
    'jsonpath={range .items[*]}{.metadata.labels.kubernetes\.io/hostname}{" "}{.status.conditions[?(@.type=="Ready")].status}{" "}{.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}')
  if [ "$REGISTRY_EXPOSE" = auto ]; then
    versions=$(kube get nodes -o 'jsonpath={.items[*].status.nodeInfo.kubeletVersion}')
    case $versions in
      *+k3s*) REGISTRY_EXPOSE=LoadBalancer ;;
      *) REGISTRY_EXPOSE=hostPort ;;
    esac
  fi
  case $REGISTRY_EXPOSE in
    hostPort | LoadBalancer) ;;
    *) die "--expose is hostPort, LoadBalancer or auto" ;;
  esac
  REGISTRY_NODE=${REGISTRY_NODE:-$(awk '$2 == "True" {print $1; exit}' <<<"$nodes")}
  [ -n "$REGISTRY_NODE" ] || die "no node of the cluster is ready"
  if [ -z "$REGISTRY_ADDRESS" ]; then
    REGISTRY_ADDRESS=$(awk -v node="$REGISTRY_NODE" '$1 == node {print $3}' <<<"$nodes")
    [ -n "$REGISTRY_ADDRESS" ] || die "the cluster has no node $REGISTRY_NODE with an address; see kubectl get nodes"
  fi
  export REGISTRY_EXPOSE REGISTRY_NODE REGISTRY_ADDRESS
}

# Finds out which of the objects of file $1 are there, and refuses to touch what others made.
check_objects() {
  local kind namespace name other
  present "$1" >"$scratch/present"
  while read -r kind namespace name other; do
    [ "$other" = "$manager" ] ||
      die "$kind $namespace/$name is there and was not made by this script: remove it, or choose another namespace"
  done <"$scratch/present"
}

# Brings the objects of file $2, which were checked, into the cluster for part $1, and takes away what an earlier run made and
# this one does not.
put_objects() {
  local part=$1 file=$2 kind namespace name
  program objects.py names "$file" >"$scratch/wanted"
  while read -r kind namespace name; do
    if ! grep -q "^$kind $namespace $name " "$scratch/present"; then doing "make $kind $namespace/$name"; fi
    note "$part object $kind $namespace $name"
  done <"$scratch/wanted"
  if dry_run; then preview "$file"; else apply -f "$file" >"$scratch/applied" || die "the cluster refuses it: see above"; fi
  notes "$part object" | while read -r kind namespace name; do
    if grep -qx "$kind $namespace $name" "$scratch/wanted"; then continue; fi
    take_object "$part" "$kind" "$namespace" "$name"
  done
}

# What would change in the objects of file $1 that are there; values of secrets are not shown.
preview() {
  local status=0
  [ -s "$scratch/present" ] || return 0
  program objects.py only "$1" "$scratch/present" >"$scratch/only"
  KUBECTL_EXTERNAL_DIFF='diff -u -N' kube diff --server-side --force-conflicts --field-manager="$manager" \
    -f "$scratch/only" >"$scratch/diff" 2>"$scratch/error" || status=$?
  if [ "$status" -gt 1 ]; then die "the cluster refuses it: $(tail -n 1 "$scratch/error")"; fi
  # Its files are called group.version.Kind.namespace.name.
  sed -n -e 's#^diff .*\.\([A-Z][A-Za-z]*\)\.\([^./]*\)\.\([^ /]*\)$#would change \1 \2/\3#p' \
    -e '/^\(---\|+++\|diff\) /d' -e 's/^[-+ @]/  &/p' "$scratch/diff"
}

# Takes back one object, if it is still ours.
take_object() {
  local part=$1 kind=$2 namespace=$3 name=$4
  if has_namespace "$namespace"; then
    doing "remove $kind $namespace/$name"
    dry_run || kube -n "$namespace" delete "$kind" -l "$label=$manager" --field-selector "metadata.name=$name" \
      --cascade=foreground --timeout="${REGISTRY_TIMEOUT}s" >/dev/null || die "$kind $namespace/$name could not be removed: see above"
  fi
  dry_run || forget "$part object $kind $namespace $name"
}

# Takes back all objects of part $1, the last one first.
take_objects() {
  local kind namespace name
  notes "$1 object" | tac >"$scratch/taken"
  while read -r kind namespace name; do take_object "$1" "$kind" "$namespace" "$name"; done <"$scratch/taken"
}

# Takes back the copy of the record.
take_record() {
  if ! has_namespace "$REGISTRY_NAMESPACE"; then return; fi
  doing "remove ConfigMap $REGISTRY_NAMESPACE/$manager"
  dry_run && return
  kube -n "$REGISTRY_NAMESPACE" delete configmap -l "$label=$manager" --field-selector "metadata.name=$manager" >/dev/null
}

# Takes back the namespace $2 that part $1 made, unless others have put something there.
take_namespace() {
  local part=$1 namespace=$2 left
  noted "$part namespace $namespace" || return 0
  if has_namespace "$namespace"; then
    left=$(others_in "$namespace")
    if [ -n "$left" ]; then
      doing "keep namespace $namespace, which holds other things: $(printf '%s' "$left" | head -n 3 | tr '\n' ' ')"
      return
    fi
    doing "remove namespace $namespace"
    dry_run || kube delete namespace "$namespace" --timeout="${REGISTRY_TIMEOUT}s" >/dev/null ||
      die "namespace $namespace does not end: see kubectl get namespace $namespace -o yaml"
  fi
  dry_run || forget "$part namespace $namespace"
}

# What a namespace holds besides that which Kubernetes puts into each, and what comes and goes with objects of ours.
others_in() {
  local kinds
  kinds=$(kube api-resources --namespaced --verbs=list,delete -o name | grep -v -e '^events' -e '\.metrics\.k8s\.io$' | paste -sd ,)
  kube -n "$1" get "$kinds" -o json --ignore-not-found | program objects.py others "$record"
}

# Waits for $1 (deployment/NAME) in namespace $2; where it is not ready in time, says why and fails.
await() {
  local what=$1 namespace=$2
  if kube -n "$namespace" rollout status "$what" --timeout="${REGISTRY_TIMEOUT}s" >"$scratch/rollout" 2>&1; then return; fi
  say "$what in $namespace is not ready after $REGISTRY_TIMEOUT seconds: $(tail -n 1 "$scratch/rollout")"
  kube -n "$namespace" get pods -l "$3" -o json | program objects.py reasons >&2
  kube -n "$namespace" logs -l "$3" --all-containers --tail=5 --prefix >&2 2>/dev/null || true
  exit 1
}
