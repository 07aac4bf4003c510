#!/usr/bin/env bash
# The bucket in MinIO, its user and its policy: made, or taken back. Options: --help.

# shellcheck source=scripts/setup/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The administrator's keys: the environment's, else those of the secret in the cluster.
need_administrator() {
  local file=${MINIO_ROOT_PASSWORD_FILE:-} secret=$REGISTRY_MINIO_SECRET
  if [ -z "${MINIO_ROOT_PASSWORD:-}" ] && [ -n "$file" ]; then MINIO_ROOT_PASSWORD=$(cat -- "$file"); fi
  if [ -z "${MINIO_ROOT_USER:-}" ] && [ -n "$secret" ]; then
    MINIO_ROOT_USER=$(secret_value "$REGISTRY_NAMESPACE" "$secret" user)
    MINIO_ROOT_PASSWORD=$(secret_value "$REGISTRY_NAMESPACE" "$secret" password)
  fi
  if [ -z "${MINIO_ROOT_USER:-}" ] || [ -z "${MINIO_ROOT_PASSWORD:-}" ]; then
    die "MinIO's administrator is not known: set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, or make the secret" \
      "$REGISTRY_NAMESPACE/$secret with the keys user and password"
  fi
  export MINIO_ROOT_USER MINIO_ROOT_PASSWORD
}

# Exports REGISTRY_MINIO, where MinIO is for this machine. A Service is reached through a port that kubectl forwards.
need_store() {
  local url=${REGISTRY_MINIO_ENDPOINT:-$REGISTRY_S3_ENDPOINT} scheme host port service namespace
  scheme=${url%%://*} host=${url#*://}
  host=${host%%/*} port=${url##*:}
  case $port in *[!0-9]*) port=80 ;; esac
  host=${host%:*}
  export REGISTRY_MINIO=$url
  case $host in
    *.svc | *.svc.*) ;;
    *) return ;;
  esac
  if getent hosts "$host" >/dev/null 2>&1; then return; fi
  have_cluster || die "$url is a name of a cluster, and kubectl reaches none: say --minio-endpoint"
  service=${host%%.*} namespace=${host#*.}
  namespace=${namespace%%.*}
  : >"$scratch/forward"
  command kubectl ${REGISTRY_CONTEXT:+--context "$REGISTRY_CONTEXT"} -n "$namespace" port-forward --address 127.0.0.1 \
    "service/$service" ":$port" >"$scratch/forward" 2>"$scratch/forward.error" &
  at_end "kill $! 2>/dev/null"
  local tries=0
  until grep -q '^Forwarding from' "$scratch/forward"; do
    if [ $((tries += 1)) -gt 300 ] || ! kill -0 $! 2>/dev/null; then
      die "MinIO's Service $namespace/$service cannot be reached: $(tail -n 1 "$scratch/forward.error")"
    fi
    sleep 0.1
  done
  port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$scratch/forward" | head -n 1)
  export REGISTRY_MINIO=$scheme://127.0.0.1:$port
}

# The secret key of the registry's user into the work folder: the given one, the one that is there, the cluster's, a new one.
need_keys() {
  local key file=$work/s3-secret-key
  if [ -n "$REGISTRY_SECRET_KEY_FILE" ]; then key=$(cat -- "$REGISTRY_SECRET_KEY_FILE")
  elif [ -n "${REGISTRY_SECRET_KEY:-}" ]; then key=$REGISTRY_SECRET_KEY
  elif [ -s "$file" ]; then key=$(cat "$file")
  else
    key=$(secret_value "$REGISTRY_NAMESPACE" edge-registry-s3 secret-key)
    if [ -z "$key" ] && [[ " $there " == *" user "* ]] && ! noted "bucket user $REGISTRY_ACCESS_KEY"; then
      die "MinIO has a user $REGISTRY_ACCESS_KEY that this script did not make: give its key with --secret-key-file," \
        "or choose another --access-key"
    fi
    key=${key:-$(program store.py secret)}
  fi
  put_file s3-access-key "$REGISTRY_ACCESS_KEY"
  put_file s3-secret-key "$key"
}

# Keeps $2 in the file $1 of the work folder.
put_file() {
  note "bucket file $1"
  printf %s "$2" >"$work/$1"
}

install() {
  local what name
  need_administrator
  need_store
  there=$(program store.py status) || exit 1
  need_keys
  for what in bucket user policy; do
    case $what in
      bucket) name=$REGISTRY_BUCKET ;;
      user) name=$REGISTRY_ACCESS_KEY ;;
      policy) name=edge-registry-$REGISTRY_BUCKET ;;
    esac
    if [[ " $there " == *" $what "* ]]; then continue; fi
    doing "make the $what $name in MinIO"
    note "bucket $what $name"
  done
  note "setting bucket $REGISTRY_BUCKET"
  dry_run && return
  secret_key_file=$work/s3-secret-key
  edge setup bucket --endpoint "$REGISTRY_MINIO" --bucket "$REGISTRY_BUCKET" \
    --access-key "$REGISTRY_ACCESS_KEY" 2>"$scratch/bucket" || { cat "$scratch/bucket" >&2; exit 1; }
}

uninstall() {
  local file
  if [ -z "$(notes 'bucket bucket')$(notes 'bucket user')$(notes 'bucket policy')$(notes 'bucket file')" ]; then return; fi
  if [ -n "$(notes 'bucket bucket')$(notes 'bucket user')$(notes 'bucket policy')" ]; then
    need_administrator
    need_store
    there=$(program store.py status) || exit 1
    take user "$REGISTRY_ACCESS_KEY"
    take policy "edge-registry-$REGISTRY_BUCKET"
    take_bucket
  fi
  notes 'bucket file' | while IFS= read -r file; do
    doing "remove $state/$file"
    dry_run && continue
    rm -f -- "${work:?}/$file"
    forget "bucket file $file"
  done
}

# Takes back the user or the policy $2, if an earlier run made it.
take() {
  noted "bucket $1 $2" || return 0
  if [[ " $there " == *" $1 "* ]]; then
    doing "remove the $1 $2 from MinIO"
    dry_run || program store.py remove "$1" || exit 1
  fi
  dry_run || forget "bucket $1 $2"
}

# The bucket goes when an earlier run made it and it holds nothing but the registry's own upkeep, or when that was asked for.
take_bucket() {
  noted "bucket bucket $REGISTRY_BUCKET" || return 0
  if [[ " $there " == *" bucket "* ]]; then
    if [ -n "${REGISTRY_DELETE_DATA:-}" ]; then
      doing "remove the bucket $REGISTRY_BUCKET from MinIO, with all that is in it"
      dry_run || program store.py remove content bucket || exit 1
    elif [ -n "$(program store.py has-content)" ]; then
      doing "keep the bucket $REGISTRY_BUCKET, which has content; --delete-data removes it"
      return
    else
      doing "remove the bucket $REGISTRY_BUCKET from MinIO"
      dry_run || program store.py remove bucket || exit 1
    fi
  fi
  dry_run || forget "bucket bucket $REGISTRY_BUCKET"
}

begin "$@"
if uninstalling; then
  # What was made counts, not what the options say today.
  REGISTRY_BUCKET=$(notes 'setting bucket' | tail -n 1 | grep . || echo "$REGISTRY_BUCKET")
  REGISTRY_ACCESS_KEY=$(notes 'bucket user' | tail -n 1 | grep . || echo "$REGISTRY_ACCESS_KEY")
fi
export REGISTRY_BUCKET REGISTRY_ACCESS_KEY=${REGISTRY_ACCESS_KEY:-$REGISTRY_BUCKET}
if uninstalling; then uninstall; else install; fi
