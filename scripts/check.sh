#!/usr/bin/env bash
# check.sh [STEP …]: what `make check` adds to the tests. Steps: format layers symbols preload tidy memory thread.
# A step that fails is named at the end; the others still run. CHECK_TIDY=all looks at every file with clang-tidy, otherwise
# at those that differ from the merge base with main, or were changed in the last commit.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(format layers symbols preload tidy memory thread)

format() { scripts/format.sh --check; }
layers() { /usr/bin/python3 scripts/check_layers.py; }
symbols() { scripts/check_symbols.sh build/libai_vmm.so; }
preload() { scripts/check_preload.sh build/lib/libairamp.so; }

tidy() {
  local files
  if [ "${CHECK_TIDY:-}" = all ]; then
    files=$(git ls-files 'src/*.cpp' 'apps/*.cpp')
  else
    local base
    base=$(git merge-base HEAD main 2>/dev/null)
    [ -n "$base" ] && [ "$base" != "$(git rev-parse HEAD)" ] || base=HEAD~1
    files=$(git diff --name-only --diff-filter=d "$base" -- 'src/*.cpp' 'apps/*.cpp')
  fi
  [ -n "$files" ] || return 0
  # Compiled under gcc's flags; clang need not know them all.
  printf '%s\n' $files | xargs -P "$(nproc)" -n 1 clang-tidy -p build --quiet \
    --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-gnu-statement-expression
}

# sanitized PRESET: the unit tests and the conformance cases under a sanitizer.
sanitized() {
  local preset=$1 status=0
  cmake --preset "$preset" --log-level=NOTICE -DAI_VMM_PYTHON="$PWD/build/venv/bin/python" || return 1
  cmake --build "build/$preset" || return 1
  build/venv/bin/python tests/conformance/cases.py --out build/conformance || return 1
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -L unit || status=1
  "build/$preset/bin/conformance" --data build/conformance --backend cpu --list tests/conformance/exceptions.txt || status=1
  return $status
}
memory() {
  LSAN_OPTIONS="suppressions=$PWD/scripts/known_leaks.txt:print_suppressions=0" UBSAN_OPTIONS=print_stacktrace=1 sanitized asan
}
# OpenMP's run-time library is not built for the thread sanitizer; Archer, the tool that comes with it, reports its barriers.
thread() {
  local archer
  archer="$(dirname "$(ldconfig -p | sed -n 's/.*libomp\.so\.5 .*=> //p' | head -1 | xargs readlink -f)")/libarcher.so"
  [ -e "$archer" ] || { echo "$archer, of the package of libomp.so.5, is missing: scripts/setup.sh packages" >&2; return 1; }
  OMP_TOOL_LIBRARIES="$archer" TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1 die_after_fork=0" sanitized tsan
}

failed=()
for step in "${steps[@]}"; do
  echo "== $step"
  "$step" || failed+=("$step")
done
[ ${#failed[@]} -eq 0 ] && echo "All checks passed: ${steps[*]}" || { echo "Failed: ${failed[*]}" >&2; exit 1; }
