#include "import/onnx.hpp"

#include "base/file.hpp"
#include "import/model_reader.hpp"

namespace ai_vmm {

namespace {

std::string folder_of(const std::string& path) {
  auto slash = path.rfind('/');
  return slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// The external-data files of one model, each opened once.
struct ExternalFiles {
  std::vector<std::string> folders;  // of the model: where it really lies, and where it was named
  bool copy, allow_links;
  std::map<std::string, std::shared_ptr<const FileBytes>> files = {};

  Result<std::shared_ptr<const void>> open(const std::string& location, Bytes& bytes) {
    auto& file = files[location];
    if (!file) {
      AI_VMM_TRY(check(location));
      std::vector<std::string> inside;
      if (!allow_links) inside = folders;
      auto opened = FileBytes::open(folders[0] + "/" + location, copy, inside);
      // A hub's cache holds the model under a hash and links to it from a folder where its files have names.
      if (!opened.ok() && opened.status().code() == Code::not_found && folders.size() > 1)
        opened = FileBytes::open(folders[1] + "/" + location, copy, inside);
      if (!opened.ok()) return std::move(opened).status();
      file = *std::move(opened);
    }
    bytes = file->bytes();
    return std::shared_ptr<const void>(file);
  }

  static Status check(const std::string& location) {
    bool climbs = location.empty() || location[0] == '/' || location.find('\0') != location.npos;
    for (size_t start = 0; start <= location.size();) {
      size_t end = std::min(location.find('/', start), location.size());
      climbs |= location.compare(start, end - start, "..") == 0;
      start = end + 1;
    }
    if (!climbs) return {};
    return Status(Code::permission_denied,
                  "The model names \"" + location +
                      "\" as a file of its weights; such names must be relative, without \"..\", inside the "
                      "model's folder.");
  }
};

}  // namespace

Result<Graph> import_onnx(const std::string& path, const ImportOptions& options) {
  std::string real = AI_VMM_TAKE(resolve_path(path));
  std::shared_ptr<const FileBytes> file = AI_VMM_TAKE(FileBytes::open(real, options.copy_weights));
  ExternalFiles external{
      .folders = {folder_of(real)}, .copy = options.copy_weights, .allow_links = options.allow_links};
  if (auto named = resolve_path(folder_of(path)); named.ok() && *named != external.folders[0])
    external.folders.push_back(*named);
  TensorSource source{.owner = file, .copy = false, .external = [&](const std::string& location, Bytes& bytes) {
                        return external.open(location, bytes);
                      }};
  auto graph = ModelReader(options, std::move(source)).read(file->bytes());
  if (!graph.ok()) return std::move(graph).status().during("the reading of \"" + path + "\"");
  graph->files.push_back(std::move(file));
  for (auto& [location, opened] : external.files)
    if (opened) graph->files.push_back(std::move(opened));
  return graph;
}

Result<Graph> import_onnx(std::span<const std::byte> bytes, const ImportOptions& options) {
  TensorSource source{.owner = {}, .copy = options.copy_weights, .external = {}};
  return ModelReader(options, std::move(source)).read(bytes);
}

Status verify_files(const Graph& graph) {
  for (const auto& f : graph.files) AI_VMM_TRY(f->verify());
  return {};
}

}  // namespace ai_vmm
