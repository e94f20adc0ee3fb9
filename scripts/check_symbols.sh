#!/usr/bin/env bash
# check_symbols.sh LIBRARY [--update]: what the library shows is what exported_symbols.txt lists.
set -euo pipefail
list="$(dirname "$0")/exported_symbols.txt"
shown() { nm -DC --defined-only "$1" | sed 's/^[0-9a-f]* . //' | LC_ALL=C sort -u; }
if [ "${2:-}" = --update ]; then
  shown "$1" >"$list"
elif ! diff -u "$list" <(shown "$1"); then
  echo "The symbols of $1 differ from $list; if that is meant: scripts/check_symbols.sh $1 --update" >&2
  exit 1
fi
