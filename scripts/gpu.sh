#!/usr/bin/env bash
# gpu.sh cuda|hip: what is to be run on a machine with such a GPU, after `make build`: every kernel against the reference on the
# device, all conformance cases, what the interface asks of a backend, and the benchmark. Leaves at the first failure.
set -euo pipefail
cd "$(dirname "$0")/.."
backend=${1:?usage: gpu.sh cuda|hip}
build/bin/aivmm devices
"build/bin/emulated_${backend}_test" --gtest_filter='*Kernels*' # without the emulator's folder these run on the device
[ -d build/conformance ] || ctest --test-dir build -R 'conformance_(cases|contrib)$'
build/bin/conformance --backend "$backend" --refusals --list tests/conformance/exceptions.txt
build/bin/aivmm plugin-check "$backend"
build/venv/bin/python bench/cuda.py --backend "$backend:0"
