#!/usr/bin/env bash
# format.sh -i: formats the C++ sources. format.sh --check: fails if one is not formatted, and names it.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(find include src apps python interposer tests examples -name '*.cpp' -o -name '*.hpp' -o -name '*.h')
case "${1:-}" in
  -i) clang-format -i "${files[@]}" && clang-format -i "${files[@]}" ;;  # one pass alone is not always a fixed point
  --check) clang-format --dry-run -Werror "${files[@]}" ;;
  *) sed -n 2p "$0" >&2; exit 2 ;;
esac
