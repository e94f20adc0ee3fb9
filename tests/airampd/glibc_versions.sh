#!/usr/bin/env bash
# glibc_versions.sh LIBRARY MOST: fails if the library needs a glibc newer than MOST, or any library but libc, libdl
# and libpthread, and names what asks for it.
set -euo pipefail
library=$1 most=$2
objdump -T "$library" | grep -q GLIBC_ || { echo "$library needs no versioned symbol: this check sees nothing" >&2; exit 1; }
newer=$(objdump -T "$library" | sed -n 's/.*(\?GLIBC_\([0-9.]*\))\? *\(.*\)/\1 \2/p' | while read -r version symbol; do
  [ "$(printf '%s\n%s\n' "$version" "$most" | sort -V | tail -1)" = "$most" ] || echo "$symbol (GLIBC_$version)"
done)
needed=$(objdump -p "$library" | awk '/NEEDED/ && $2 !~ /^(libc|libdl|libpthread)\.so|^ld-linux/ {print $2}')
[ -z "$newer$needed" ] || { printf '%s needs:\n%s\n%s\n' "$library" "$newer" "$needed" >&2; exit 1; }
