#!/usr/bin/env bash
# Installs what is missing: Debian packages and a Python virtual environment.
#
#   scripts/setup.sh packages [check]   by apt, as root or through sudo; nothing is done when all are there
#   scripts/setup.sh python             build/venv from requirements.txt and requirements-programs.txt
#
# Each step does nothing, and needs no network, once its result is there.
set -euo pipefail
cd "$(dirname "$0")/.."

list() { grep -v '^#' "$1"; }

packages() {
  local missing=() package
  for package in $(list scripts/packages.txt) ${1:+$(list "scripts/packages-$1.txt")}; do
    [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local root=(env DEBIAN_FRONTEND=noninteractive)
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
      echo "These packages are missing and there is no sudo; run as root: apt-get install ${missing[*]}" >&2
      exit 1
    }
    root=(sudo "${root[@]}")
  fi
  echo "Installing packages: ${missing[*]}"
  local install=("${root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}")
  # The package lists of a fresh machine are empty or old: then, and only then, they are brought up to date.
  "${install[@]}" || { "${root[@]}" apt-get update -q && "${install[@]}"; }
}

python() {
  local stamp=build/venv/requirements.txt
  cat scripts/requirements.txt scripts/requirements-programs.txt | cmp -s - "$stamp" && return 0
  echo "Making the Python environment in build/venv"
  mkdir -p build
  /usr/bin/python3 -m venv build/venv
  local install=(build/venv/bin/python -m pip install -q --disable-pip-version-check --only-binary=:all:)
  "${install[@]}" -r scripts/requirements.txt
  "${install[@]}" --no-deps -r scripts/requirements-programs.txt
  cat scripts/requirements.txt scripts/requirements-programs.txt >"$stamp"
}

"$@"
