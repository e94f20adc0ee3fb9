// hello MODEL: runs an ONNX model on inputs of ones and prints the first element of each float output.
#include <ai_vmm/vmm.hpp>
#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) return std::puts("usage: hello MODEL"), 2;
  auto model = ai_vmm::VMM().deploy(argv[1]);
  if (!model.ok()) return std::puts(model.status().message().c_str()), 1;
  ai_vmm::Inputs inputs;
  for (const auto& port : model->inputs()) {
    ai_vmm::Shape shape = port.shape;
    for (auto& size : shape) size = size < 0 ? 1 : size;
    std::vector<float> ones(*ai_vmm::element_count(shape), 1.0f);
    inputs[port.name] = ai_vmm::Tensor::of<float>(shape, ones);
  }
  auto outputs = model->run(inputs);
  if (!outputs.ok()) return std::puts(outputs.status().message().c_str()), 1;
  for (const auto& [name, data] : *outputs) std::printf("%s = %g\n", name.c_str(), data.tensor().as<float>()[0]);
}
