# shellcheck shell=bash
# What the parts of registry_setup.sh share: options, the record of what was made, kubectl. Sourced, not run.

# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"

parts=$root/scripts/setup
manager=edge-registry-setup
ended=()

usage() {
  cat <<END
usage: ${0##*/} [--dry-run] [--uninstall [--delete-data]] [--new-authority] [--OPTION VALUE]...

  --dry-run        print every object and file that would be touched, and touch none
  --uninstall      take back exactly what was made; a bucket with content stays
  --delete-data    with --uninstall: the bucket and all images in it go too
  --new-authority  make an authority although the cluster has a certificate of another

END
  awk '
    /^$/ { begun = 1 }
    begun && /^# / { text = text "      " substr($0, 3) "\n" }
    /^REGISTRY_/ {
      value = substr($0, index($0, "=") + 1); name = substr($0, 10, index($0, "=") - 10)
      gsub("_", "-", name)
      printf "  --%s%s\n%s", tolower(name), value == "" ? "" : " (" value ")", text
      text = ""
    }' "$parts/defaults.env"
}

# The variables that defaults.env names.
known() { sed -n 's/^\(REGISTRY_[A-Z0-9_]*\)=.*/\1/p' "$parts/defaults.env"; }

# Reads options into the environment, where the parts find them, then the defaults for what is not set.
read_options() {
  local name value
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) export REGISTRY_DRY_RUN=yes ;;
      --uninstall) export REGISTRY_UNINSTALL=yes ;;
      --delete-data) export REGISTRY_DELETE_DATA=yes ;;
      --new-authority) export REGISTRY_NEW_AUTHORITY=yes ;;
      -h | --help) usage; exit 0 ;;
      --password | --password=* | --secret-key | --secret-key=*)
        die "other people see options: use ${1%%=*}-file, or the environment" ;;
      --*)
        name=REGISTRY_$(printf %s "${1%%=*}" | sed 's/^--//' | tr 'a-z-' 'A-Z_')
        grep -qx -- "$name" <<<"$(known)" || die "there is no option ${1%%=*}; see ${0##*/} --help"
        case $1 in
          *=*) value=${1#*=} ;;
          *) [ $# -gt 1 ] || die "$1 wants a value"; value=$2; shift ;;
        esac
        export "$name=$value" ;;
      *) die "$1 is no option; see ${0##*/} --help" ;;
    esac
    shift
  done
  # What older scripts called them.
  if [ -n "${regUser:-}" ]; then export REGISTRY_USER=${REGISTRY_USER:-$regUser}; fi
  value=${regPass5:-${regPass:-}}
  if [ -n "$value" ]; then export REGISTRY_PASSWORD=${REGISTRY_PASSWORD:-$value}; fi
  while IFS='=' read -r name value; do
    case $name in
      REGISTRY_*) if [ -z "${!name+set}" ]; then export "$name=$value"; fi ;;
    esac
  done <"$parts/defaults.env"
}

dry_run() { [ -n "${REGISTRY_DRY_RUN:-}" ]; }
uninstalling() { [ -n "${REGISTRY_UNINSTALL:-}" ]; }

# Runs a command when the script ends, however it ends; the last one first.
at_end() { ended=("$*" "${ended[@]}"); }
end_all() {
  local status=$? command
  trap '' INT TERM
  for command in "${ended[@]}"; do eval "$command" || true; done
  exit "$status"
}

# Options, the Python environment, and the folder `work`: the state folder itself, or with --dry-run a copy of it, where the
# parts write what they would write.
begin() {
  read_options "$@"
  umask 077
  trap end_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  case ${REGISTRY_PORT:?}${REGISTRY_TIMEOUT:?}${REGISTRY_REPLICAS:?} in
    *[!0-9]*) die "port, timeout and replicas are numbers" ;;
  esac
  if [ -n "${REGISTRY_PYTHON:-}" ]; then python=$REGISTRY_PYTHON; else need_environment requirements.lock; fi
  export REGISTRY_PYTHON=$python PYTHONPATH=$root
  REGISTRY_STATE=${REGISTRY_STATE:-${XDG_STATE_HOME:-${HOME:?}/.local/state}/edge-registry-setup/$REGISTRY_NAMESPACE}
  case $REGISTRY_STATE in /*) ;; *) REGISTRY_STATE=$PWD/$REGISTRY_STATE ;; esac
  state=$REGISTRY_STATE
  if [ -n "${REGISTRY_WORK:-}" ]; then
    work=$REGISTRY_WORK
  elif dry_run; then
    work=$(mktemp -d)
    at_end "rm -rf $(printf %q "$work")"
    if [ -d "$state" ]; then cp -a "$state/." "$work/"; fi
    at_end tell_files
  else
    work=$state
    if ! uninstalling; then mkdir -p "$work"; fi
  fi
  if uninstalling && ! dry_run && [ -z "${REGISTRY_WORK:-}" ]; then at_end tidy; fi
  export REGISTRY_STATE REGISTRY_WORK=$work
  record=$work/record
  scratch=$(mktemp -d)
  at_end "rm -rf $(printf %q "$scratch")"
  restore_record
}

# Removes the record and its folder once they name nothing.
tidy() {
  if [ -f "$record" ] && ! grep -qv '^setting ' "$record"; then rm -f "$record"; fi
  if [ -d "$state" ]; then rmdir --ignore-fail-on-non-empty "$state"; fi
}

# What --dry-run would have done to the files of the state folder.
tell_files() {
  local file
  (cd "$work" && find . -type f | sort) | while IFS= read -r file; do
    file=${file#./}
    if [ ! -e "$state/$file" ]; then printf 'would write %s/%s\n' "$state" "$file"
    elif ! cmp -s "$work/$file" "$state/$file"; then printf 'would change %s/%s\n' "$state" "$file"; fi
  done
}

# `edge-registry`, without the variables of this script, some of which mean something else to it. A secret key of the store
# comes from the file `secret_key_file`, where that is set: it is in no list of processes then.
edge() {
  (
    region=$REGISTRY_REGION
    for name in "${!REGISTRY_@}" "${!EDGE_REGISTRY_@}"; do unset "$name"; done
    if [ -n "${secret_key_file:-}" ]; then
      export EDGE_REGISTRY_STORAGE__S3__REGION=$region EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE=$secret_key_file
    fi
    exec "$python" -P -m app "$@"
  )
}
program() { "$python" -P "$parts/$1" "${@:2}"; }

kube() { command kubectl ${REGISTRY_CONTEXT:+--context "$REGISTRY_CONTEXT"} "$@"; }

# Whether there is a cluster to talk to; asked once.
have_cluster() {
  if [ -z "${REGISTRY_CLUSTER:-}" ]; then
    REGISTRY_CLUSTER=none
    if command -v kubectl >/dev/null; then
      REGISTRY_CLUSTER=$(kube get namespace kube-system -o 'jsonpath={.metadata.uid}' --request-timeout=10s 2>"${scratch:-/tmp}/kubectl" ||
        echo none)
    fi
    if [ "$REGISTRY_CLUSTER" != none ]; then export REGISTRY_CLUSTER; fi
  fi
  [ "$REGISTRY_CLUSTER" != none ]
}
need_cluster() {
  command -v kubectl >/dev/null || die "kubectl is not installed; deploy and nodes need it"
  have_cluster || die "kubectl reaches no cluster: $(tail -n 1 "$scratch/kubectl" 2>/dev/null || true)"
}
has_namespace() {
  local found
  have_cluster || return 1
  # A cluster that does not answer is not one without the namespace.
  found=$(kube get namespace "$1" --ignore-not-found -o name) || die "the cluster does not answer: see above"
  [ -n "$found" ]
}

# The value of key $3 of secret $2 in namespace $1; nothing where it is not there.
secret_value() {
  has_namespace "$1" || return 0
  kube -n "$1" get secret "$2" --ignore-not-found -o "go-template={{with index .data \"$3\"}}{{base64decode .}}{{end}}"
}

# The record has a line for each thing that was made, "PART WHAT NAME", written before it is made.
noted() { [ -f "$record" ] && grep -qxF -- "$*" "$record"; }
note() { noted "$*" || printf '%s\n' "$*" >>"$record"; }
forget() {
  [ -f "$record" ] || return 0
  grep -vxF -- "$*" "$record" >"$record.new" || true
  mv "$record.new" "$record"
}
notes() { if [ -f "$record" ]; then sed -n "s/^$1 //p" "$record"; fi; }

# Takes the record from the cluster where this machine has none, and refuses one of another cluster.
restore_record() {
  local uid
  if [ ! -f "$record" ] && has_namespace "$REGISTRY_NAMESPACE"; then
    kube -n "$REGISTRY_NAMESPACE" get configmap "$manager" --ignore-not-found -o 'jsonpath={.data.record}' >"$scratch/record"
    if [ -s "$scratch/record" ]; then mkdir -p "$work" && cp "$scratch/record" "$record"; fi
  fi
  uid=$(notes 'setting cluster')
  if [ -n "$uid" ] && have_cluster && [ "$uid" != "$REGISTRY_CLUSTER" ]; then
    die "$state belongs to another cluster: name its context with --context, or another folder with --state"
  fi
}

# Prints what will be done, or would be.
doing() { if dry_run; then printf 'would %s\n' "$*"; else say "$*"; fi; }
