// The inner part of every product on devices with wide registers: a tile of `mr` rows by `nv` vectors of `w` floats is
// held in registers, while the rows' operand gives one number and the columns' operand one vector at a time.
#pragma once

#include <cstdint>
#include <string>

namespace ai_vmm::gpu {

// Products of 8-bit numbers less their zero points are below 2^16: so many of them add up exactly in a float.
constexpr int kExactTerms = 256;

struct Tile {
  int mr, nv, w;
  int columns() const { return nv * w; }

  std::string declare() const;
  std::string clear() const;
  // One step along the inner axis: `row(i)` is the text of row i's number, `column(j)` that of vector j.
  template <class Row, class Column>
  std::string multiply(Row row, Column column) const {
    std::string s = "{ V splat; V ";
    for (int j = 0; j < nv; ++j) s += (j ? ", b" : "b") + std::to_string(j) + " = " + column(j);
    s += ";\n";
    for (int i = 0; i < mr; ++i) {
      s += "splat = (V)(" + row(i) + ");";
      for (int j = 0; j < nv; ++j) {
        std::string c = name(i, j);
        s += " " + c + " = fma(splat, b" + std::to_string(j) + ", " + c + ");";
      }
      s += "\n";
    }
    return s + "}\n";
  }
  // The tile into an array, row by row.
  std::string spill(const std::string& array) const;
  // The tile from and into rows `stride` apart.
  std::string load(const std::string& array, int64_t stride) const;
  std::string store(const std::string& array, int64_t stride) const;
  // The tile, which holds whole numbers, is added to the array of ints `sum` and cleared.
  std::string flush(const std::string& sum) const;

 private:
  static std::string name(int i, int j) { return "c" + std::to_string(i) + "_" + std::to_string(j); }
};

}  // namespace ai_vmm::gpu
