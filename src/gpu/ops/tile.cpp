#include "gpu/ops/tile.hpp"

#include "gpu/dialect.hpp"

namespace ai_vmm::gpu {

std::string Tile::declare() const {
  std::string s = "V ";
  for (int i = 0; i < mr; ++i)
    for (int j = 0; j < nv; ++j) s += (i || j ? ", " : "") + name(i, j) + " = (V)(0.0f)";
  return s + ";\n";
}

std::string Tile::clear() const {
  std::string s;
  for (int i = 0; i < mr; ++i)
    for (int j = 0; j < nv; ++j) s += name(i, j) + " = ";
  return s + "(V)(0.0f);\n";
}

std::string Tile::flush(const std::string& sum) const {
  const std::string n = std::to_string(mr * columns());
  return "{ float part[" + n + "];\n" + spill("part") + "for (int l = 0; l < " + n + "; ++l) " + sum +
         "[l] += (int)part[l]; }\n" + clear();
}

std::string Tile::load(const std::string& array, int64_t stride) const {
  std::string s;
  for (int i = 0; i < mr; ++i)
    for (int j = 0; j < nv; ++j)
      s += name(i, j) + " = " + vector_load(w, array + " + " + std::to_string(i * stride + j * w)) + ";\n";
  return s;
}

std::string Tile::store(const std::string& array, int64_t stride) const {
  std::string s;
  for (int i = 0; i < mr; ++i)
    for (int j = 0; j < nv; ++j)
      s += vector_store(w, name(i, j), array + " + " + std::to_string(i * stride + j * w)) + ";\n";
  return s;
}

std::string Tile::spill(const std::string& array) const { return store(array, columns()); }

}  // namespace ai_vmm::gpu
