#!/usr/bin/env python3
"""Holds what we declare of CUDA, NVRTC, cuBLASLt and cuDNN against NVIDIA's headers: as many arguments, each of the same size
and class. Exit status 77 where there is no CUDA toolkit.

    check_signatures.py COMPILER [INCLUDE_FOLDER]
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HEADERS = ["cuda.h", "nvrtc.h", "cublasLt.h", "cudnn.h"]
COMPARE = """
#include <stdint.h>
#include <type_traits>
using Handle = void*;
using Address = uint64_t;
struct Heuristic { uint64_t a[8]; size_t b; int c; float d; int e[4]; };
struct Choice { int a, b; float c; size_t d; int e, f, g[3]; };
template <class T, class U> constexpr bool same() {
  if (sizeof(T) != sizeof(U) || std::is_floating_point_v<T> != std::is_floating_point_v<U>) return false;
  if constexpr (std::is_pointer_v<T> && std::is_pointer_v<U>) {
    using A = std::remove_pointer_t<T>; using B = std::remove_pointer_t<U>;
    if constexpr (!std::is_void_v<A> && !std::is_void_v<B> && !std::is_function_v<A>) return sizeof(A) == sizeof(B);
  }
  return true;
}
template <class> struct Fits;
template <class R, class... A> struct Fits<R(A...)> {
  template <class S, class... B> static constexpr bool with(S (*)(B...)) {
    if constexpr (sizeof...(A) != sizeof...(B)) return false;
    else return same<R, S>() && (same<A, B>() && ...);
  }
};
"""


def declared():
    """(signature, symbol) of every row for CUDA."""
    rows = []
    api = (ROOT / "src/gpu/module/api.hpp").read_text()
    for signature, names in re.findall(r"\bROW(?:_CUDA|_OPTIONAL)?\(((?:int|const char\*)\(.*?\)),\s*\w+,\s*((?:\"\w*\"[,\s]*)+)\)", api, re.S):
        rows.append((signature, re.findall(r'"(\w+)"', names)[0]))
    text = (ROOT / "src/gpu/module/libraries.cpp").read_text()
    text = text[:text.index("struct HipBlas")]
    rows += re.findall(r"Symbol<((?:int|size_t)\(.*?\))>\s*\w+\{\s*this,\s*\"(\w+)\"", text, re.S)
    return rows


def main() -> int:
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "/usr/local/cuda/include")
    present = [h for h in HEADERS if (folder / h).exists()]
    if "cuda.h" not in present:
        print(f"Skipped: there is no cuda.h in {folder}; the CUDA toolkit brings it.")
        return 77
    prefixes = {"cuda.h": "cu[A-Z]", "nvrtc.h": "nvrtc", "cublasLt.h": "cublasLt", "cudnn.h": "cudnn"}
    rows = [r for r in declared() if any(re.match(prefixes[h], r[1]) for h in present)]
    if len(rows) < 30:
        print(f"Only {len(rows)} declarations were found; the way they are written has changed.")
        return 1
    with tempfile.TemporaryDirectory() as place:
        source = pathlib.Path(place) / "check.cpp"
        source.write_text("".join(f"#include <{h}>\n" for h in present) + COMPARE + "".join(
            f'static_assert(Fits<{signature}>::with(static_cast<decltype(&::{symbol})>(nullptr)), "{symbol}");\n'
            for signature, symbol in rows))
        done = subprocess.run([sys.argv[1], "-std=c++17", "-fsyntax-only", "-w", f"-I{folder}", str(source)])
    if done.returncode == 0:
        print(f"{len(rows)} declarations agree with {', '.join(present)} in {folder}.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
