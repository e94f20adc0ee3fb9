#pragma once

#include "library.hpp"

// What happens to hooked calls of Gloo, which PyTorch carries in libtorch_cpu.so. Handlers get the real function first.
namespace AIRamp::Interposer {

// gloo::rendezvous::Context::connectFullMesh: in older versions `store` is one, in younger ones a shared pointer to
// one.
void on_gloo_connect(
    _ZN4gloo10rendezvous7Context15connectFullMeshERNS0_5StoreERSt10shared_ptrINS_9transport6DeviceEE_t* function,
    void* context, void* store, void* device, bool shared);
inline auto on_gloo_connect_store = [](auto* function, void* context, void* store, void* device) {
  on_gloo_connect(function, context, store, device, false);
};
inline auto on_gloo_connect_shared = [](auto* function, void* context, void* store, void* device) {
  on_gloo_connect(function, context, store, device, true);
};

// gloo::allreduce(const gloo::AllreduceOptions&)
void on_gloo_allreduce(_ZN4gloo9allreduceERKNS_16AllreduceOptionsE_t* function, const void* options);

}  // namespace AIRamp::Interposer
