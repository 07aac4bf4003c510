#!/usr/bin/env bash
# The registry in the cluster: namespace, secrets, Deployment and Service, awaited; or taken back. Options: --help.

# shellcheck source=scripts/setup/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

selector=app.kubernetes.io/name=edge-registry,app.kubernetes.io/component=registry

# The password that was given; nothing where none was.
given_password() {
  if [ -n "$REGISTRY_PASSWORD_FILE" ]; then head -n 1 -- "$REGISTRY_PASSWORD_FILE"
  else printf %s "${REGISTRY_PASSWORD:-}"; fi
}

# Whether the file of users has this user, and with the password $1 if one is given.
has_user() {
  [ -s "$users" ] || return 1
  if [ -n "$1" ]; then printf %s "$1" | program users.py check "$users" "$REGISTRY_USER"
  else grep -qxF -- "$REGISTRY_USER" <<<"$(cut -d: -f1 "$users")"; fi
}

# The cluster's users in a file, with the first user among them. The cluster's are the truth: people add others there.
need_users() {
  password=$(given_password)
  made=
  secret_value "$REGISTRY_NAMESPACE" edge-registry-users htpasswd >"$users"
  if has_user "$password"; then return; fi
  if [ -z "$password" ]; then
    password=$(program store.py secret)
    made=yes
  fi
  if [ ! -s "$users" ]; then rm -f "$users"; fi
  printf %s "$password" | edge user add "$REGISTRY_USER" --password-stdin --file "$users" 2>"$scratch/user" ||
    { cat "$scratch/user" >&2; exit 1; }
  doing "set the password of the user $REGISTRY_USER"
}

# The pull secret for each namespace that wants it, in files whose names are in `pulls`.
need_pull_secrets() {
  local namespace servers=(--server "$REGISTRY_ADDRESS:$REGISTRY_PORT") login
  pulls=()
  [ "${REGISTRY_NAME:?}" = - ] || servers+=(--server "$REGISTRY_NAME:$REGISTRY_PORT")
  for namespace in $REGISTRY_PULL_SECRETS; do
    has_namespace "$namespace" || [ "$namespace" = "$REGISTRY_NAMESPACE" ] || die "there is no namespace $namespace"
    login=$scratch/pull-$namespace.yaml
    if [ -n "$password" ]; then
      printf %s "$password" | edge pull-secret registry-pull --namespace "$namespace" --user "$REGISTRY_USER" \
        "${servers[@]}" --password-stdin >"$login" || exit 1
    elif [ -n "$(secret_value "$namespace" registry-pull .dockerconfigjson)" ]; then
      kube -n "$namespace" get secret registry-pull -o json | program objects.py plain >"$login"
    else
      die "the password of $REGISTRY_USER is known to nobody but those who have it: set REGISTRY_PASSWORD for a pull secret"
    fi
    pulls+=("$login")
  done
}

install() {
  local file objects=$scratch/objects.yaml
  need_cluster
  for file in s3-access-key s3-secret-key certs/server.crt certs/server.key; do
    [ -s "$work/$file" ] || die "$state/$file is missing: run scripts/setup/bucket.sh and scripts/setup/certificates.sh first"
  done
  find_way_in
  users=$scratch/htpasswd
  need_users
  need_pull_secrets
  program objects.py deploy "$users" "${pulls[@]}" >"$objects"
  note "setting cluster $REGISTRY_CLUSTER"
  need_namespace deploy "$REGISTRY_NAMESPACE"
  check_objects "$objects"
  put_objects deploy "$objects"
  save_record
  if [ -n "$made" ] && ! dry_run; then
    printf 'user %s, password %s (shown this once)\n' "$REGISTRY_USER" "$password"
  fi
  dry_run || await deployment/edge-registry "$REGISTRY_NAMESPACE" "$selector"
}

uninstall() {
  if [ -z "$(notes deploy)" ]; then return; fi
  need_cluster
  take_objects deploy
  if [ -n "$(notes 'nodes object')" ]; then return; fi # the record stays until nothing is left that it names
  take_record
  take_namespace deploy "$(notes 'deploy namespace' | head -n 1)"
}

begin "$@"
if uninstalling; then uninstall; else install; fi
