// The part of ONNX Runtime's C interface that we use. The library gives out one table of function pointers,
// OrtGetApiBase()->GetApi(version), to which versions only append: an entry's place never changes. The places and
// signatures are those of onnxruntime_c_api.h (ONNX Runtime 1.27; the project's own assertions fix 101, 118, 124, 126,
// 149, 157, 161 and 169 as the last places of its versions 1 to 8). No package that we may rely on carries that header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ai_vmm::onnxruntime {

// Opaque objects of the library.
struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtTensorInfo;
struct OrtEpDevice;
struct OrtHardwareDevice;
struct OrtKeyValuePairs;

struct OrtApiBase {
  const void* const* (*GetApi)(uint32_t version);  // null: newer than the library
  const char* (*GetVersionString)();
};

// Versions of the table: what everything needs (1.18, the first to read opset 21), and what other vendors' devices need
// (1.22).
inline constexpr uint32_t kOldestApi = 18, kDevicesApi = 22;

inline constexpr int kNotImplemented = 9;                      // OrtErrorCode
inline constexpr int kDisableOptimizers = 0;                   // GraphOptimizationLevel
inline constexpr int kFatalOnly = 4;                           // OrtLoggingLevel
inline constexpr int kPlainAllocator = 0, kDefaultMemory = 0;  // OrtAllocatorType, OrtMemType
enum class HardwareType { cpu, gpu, npu };                     // OrtHardwareDeviceType

// X(place, name, return type, arguments)
#define AI_VMM_ORT_BASE(X)                                                                                      \
  X(1, GetErrorCode, int, (const OrtStatus*))                                                                   \
  X(2, GetErrorMessage, const char*, (const OrtStatus*))                                                        \
  X(3, CreateEnv, OrtStatus*, (int log_level, const char* log_id, OrtEnv**))                                    \
  X(8, CreateSessionFromArray, OrtStatus*,                                                                      \
    (const OrtEnv*, const void* model, size_t bytes, const OrtSessionOptions*, OrtSession**))                   \
  X(9, Run, OrtStatus*,                                                                                         \
    (OrtSession*, const OrtRunOptions*, const char* const* input_names, const OrtValue* const* inputs, size_t,  \
     const char* const* output_names, size_t, OrtValue** outputs))                                              \
  X(10, CreateSessionOptions, OrtStatus*, (OrtSessionOptions**))                                                \
  X(22, SetSessionLogSeverityLevel, OrtStatus*, (OrtSessionOptions*, int))                                      \
  X(23, SetSessionGraphOptimizationLevel, OrtStatus*, (OrtSessionOptions*, int))                                \
  X(24, SetIntraOpNumThreads, OrtStatus*, (OrtSessionOptions*, int))                                            \
  X(25, SetInterOpNumThreads, OrtStatus*, (OrtSessionOptions*, int))                                            \
  X(49, CreateTensorWithDataAsOrtValue, OrtStatus*,                                                             \
    (const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape, size_t rank, int dtype, OrtValue**)) \
  X(51, GetTensorMutableData, OrtStatus*, (OrtValue*, void**))                                                  \
  X(61, GetDimensionsCount, OrtStatus*, (const OrtTensorInfo*, size_t*))                                        \
  X(62, GetDimensions, OrtStatus*, (const OrtTensorInfo*, int64_t*, size_t))                                    \
  X(65, GetTensorTypeAndShape, OrtStatus*, (const OrtValue*, OrtTensorInfo**))                                  \
  X(69, CreateCpuMemoryInfo, OrtStatus*, (int allocator, int memory, OrtMemoryInfo**))                          \
  X(93, ReleaseStatus, void, (OrtStatus*))                                                                      \
  X(95, ReleaseSession, void, (OrtSession*))                                                                    \
  X(96, ReleaseValue, void, (OrtValue*))                                                                        \
  X(99, ReleaseTensorTypeAndShapeInfo, void, (OrtTensorInfo*))                                                  \
  X(100, ReleaseSessionOptions, void, (OrtSessionOptions*))                                                     \
  X(125, GetAvailableProviders, OrtStatus*, (char*** names, int* count))                                        \
  X(126, ReleaseAvailableProviders, OrtStatus*, (char** names, int count))                                      \
  X(130, AddSessionConfigEntry, OrtStatus*, (OrtSessionOptions*, const char* key, const char* value))           \
  X(210, AddExternalInitializers, OrtStatus*,                                                                   \
    (OrtSessionOptions*, const char* const* names, const OrtValue* const* values, size_t))                      \
  X(216, SessionOptionsAppendExecutionProvider, OrtStatus*,                                                     \
    (OrtSessionOptions*, const char* name, const char* const* keys, const char* const* values, size_t))

#define AI_VMM_ORT_DEVICES(X)                                                                         \
  X(297, GetKeyValue, const char*, (const OrtKeyValuePairs*, const char* key))                        \
  X(301, RegisterExecutionProviderLibrary, OrtStatus*, (OrtEnv*, const char* name, const char* path)) \
  X(303, GetEpDevices, OrtStatus*, (const OrtEnv*, const OrtEpDevice* const**, size_t*))              \
  X(304, SessionOptionsAppendExecutionProvider_V2, OrtStatus*,                                        \
    (OrtSessionOptions*, OrtEnv*, const OrtEpDevice* const*, size_t, const char* const* keys,         \
     const char* const* values, size_t))                                                              \
  X(307, HardwareDevice_Type, HardwareType, (const OrtHardwareDevice*))                               \
  X(309, HardwareDevice_Vendor, const char*, (const OrtHardwareDevice*))                              \
  X(310, HardwareDevice_DeviceId, uint32_t, (const OrtHardwareDevice*))                               \
  X(311, HardwareDevice_Metadata, const OrtKeyValuePairs*, (const OrtHardwareDevice*))                \
  X(312, EpDevice_EpName, const char*, (const OrtEpDevice*))                                          \
  X(313, EpDevice_EpVendor, const char*, (const OrtEpDevice*))                                        \
  X(316, EpDevice_Device, const OrtHardwareDevice*, (const OrtEpDevice*))

struct Api {
#define AI_VMM_ORT_POINTER(place, name, result, arguments) result(*name) arguments = nullptr;
  AI_VMM_ORT_BASE(AI_VMM_ORT_POINTER)
  AI_VMM_ORT_DEVICES(AI_VMM_ORT_POINTER)  // null before version 22
#undef AI_VMM_ORT_POINTER

  void bind(const void* const* table, bool with_devices) {
#define AI_VMM_ORT_BIND(place, name, result, arguments) name = reinterpret_cast<result(*) arguments>(table[place]);
    AI_VMM_ORT_BASE(AI_VMM_ORT_BIND)
    if (with_devices) {
      AI_VMM_ORT_DEVICES(AI_VMM_ORT_BIND)
    }
#undef AI_VMM_ORT_BIND
  }
};

#undef AI_VMM_ORT_BASE
#undef AI_VMM_ORT_DEVICES

}  // namespace ai_vmm::onnxruntime
