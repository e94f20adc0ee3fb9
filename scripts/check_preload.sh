#!/usr/bin/env bash
# check_preload.sh LIBRARY: what is put into foreign programs needs libc and libdl only, no symbol of glibc younger than
# 2.17, and shows nothing but hooked functions.
set -euo pipefail
status=0
complain() { echo "$1" >&2; status=1; }

needed=$(readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vxE 'libc\.so\.6|libdl\.so\.2' || true)
[ -z "$needed" ] || complain "$1 needs $needed, which not every program has."

young=$(nm -D --undefined-only "$1" | grep -oE '[^ ]+@GLIBC_[0-9.]+' | awk -F'@GLIBC_' '{
  split($2, v, "."); if (v[1] > 2 || v[2] > 17) print $1 " (glibc " $2 ")" }')
[ -z "$young" ] || complain "$1 needs symbols that older systems lack: $young"

# MPI_…, PMPI_…, cl…, cu…, hip…, nccl…, Gloo's, the call in which Open MPI publishes, and dlsym.
shown=$(nm -D --defined-only "$1" | awk '{print $3}' | grep -vE '^(P?MPIX?_[A-Z][a-z_]+|PMIx_Commit|cl[A-Z][A-Za-z]+|cu[A-Z][A-Za-z]+(_v2)?(_ptsz|_ptds)?|hip[A-Z][A-Za-z]+(_spt)?|nccl[A-Z][A-Za-z]+|_ZN4gloo[A-Za-z0-9_]+|dlsym)$' || true)
[ -z "$shown" ] || complain "$1 shows more than hooked functions: $shown"
exit $status
