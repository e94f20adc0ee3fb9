#include "gpu/module/libraries.hpp"

#include <mutex>

#include "base/log.hpp"
#include "base/python_packages.hpp"

namespace ai_vmm::gpu {

namespace {

constexpr int kNotThere = -1;  // of an element type that a library has no number for

Status failed(const char* what, int error) {
  if (!error) return {};
  return Status(Code::unimplemented, std::string(what) + " answers with error " + std::to_string(error) + ".");
}

// ---------------------------------------------------------------- cuBLASLt

// Declared after NVIDIA's manual of cuBLAS 11 to 13; enumerators and struct sizes are the same in all of them.
struct CublasLt : Library {
  struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
  };
  enum : int { kTransposeA = 3, kTransposeB = 4, kBatchCount = 5, kBatchStride = 6, kWorkspace = 1 };
  Symbol<size_t()> version{this, "cublasLtGetVersion"};
  Symbol<int(Handle*)> create{this, "cublasLtCreate"};
  Symbol<int(Handle)> destroy{this, "cublasLtDestroy"};
  Symbol<int(Handle*, int compute, int scale)> product_create{this, "cublasLtMatmulDescCreate"};
  Symbol<int(Handle)> product_destroy{this, "cublasLtMatmulDescDestroy"};
  Symbol<int(Handle, int attribute, const void*, size_t)> product_set{this, "cublasLtMatmulDescSetAttribute"};
  Symbol<int(Handle*, int type, uint64_t rows, uint64_t columns, int64_t leading)> layout_create{
      this, "cublasLtMatrixLayoutCreate"};
  Symbol<int(Handle)> layout_destroy{this, "cublasLtMatrixLayoutDestroy"};
  Symbol<int(Handle, int attribute, const void*, size_t)> layout_set{this, "cublasLtMatrixLayoutSetAttribute"};
  Symbol<int(Handle*)> preference_create{this, "cublasLtMatmulPreferenceCreate"};
  Symbol<int(Handle)> preference_destroy{this, "cublasLtMatmulPreferenceDestroy"};
  Symbol<int(Handle, int attribute, const void*, size_t)> preference_set{this, "cublasLtMatmulPreferenceSetAttribute"};
  Symbol<int(Handle library, Handle product, Handle a, Handle b, Handle c, Handle d, Handle preference, int wanted,
             Heuristic*, int* found)>
      heuristic{this, "cublasLtMatmulAlgoGetHeuristic"};
  Symbol<int(Handle library, Handle product, const void* alpha, uint64_t a, Handle a_layout, uint64_t b,
             Handle b_layout, const void* beta, uint64_t c, Handle c_layout, uint64_t d, Handle d_layout,
             const void* algorithm, uint64_t workspace, size_t workspace_bytes, Handle stream)>
      multiply{this, "cublasLtMatmul"};
};

int cuda_type(DType t) { return t == DType::f32 ? 0 : t == DType::f16 ? 2 : t == DType::bf16 ? 14 : kNotThere; }
int cuda_compute(Arithmetic a, DType t) {
  if (t != DType::f32) return 68;  // CUBLAS_COMPUTE_32F
  switch (a) {
    case Arithmetic::f32: return 68;
    case Arithmetic::tf32: return 77;
    case Arithmetic::bf16: return 75;
    case Arithmetic::f16: return 74;
  }
  return 68;
}

// How a matrix by strides lies in columns: whether the library has to transpose it to `rows` × `columns`.
struct Columns {
  bool transposed;
  int64_t leading;
};
std::optional<Columns> in_columns(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride) {
  if ((row_stride == 1 || rows == 1) && column_stride >= rows) return Columns{false, column_stride};
  if ((column_stride == 1 || columns == 1) && row_stride >= columns) return Columns{true, row_stride};
  return std::nullopt;
}

// In the library's eyes matrices lie in columns: what is computed is the transposed product, Cᵀ = Bᵀ · Aᵀ.
class LtProduct : public LibraryWork {
 public:
  LtProduct(const CublasLt& lt, Handle library) : lt_(lt), library_(library) {}
  ~LtProduct() override {
    if (product_) lt_.product_destroy(product_);
    for (Handle l : layouts_)
      if (l) lt_.layout_destroy(l);
  }
  Status prepare(const LibraryProduct& p) {
    auto b = in_columns(p.n, p.k, p.bn, p.bk), a = in_columns(p.k, p.m, p.ak, p.am);
    if (!a || !b) return Status(Code::unimplemented, "No side of a matrix is dense.");
    alpha_ = p.alpha;
    const int type = cuda_type(p.type);
    AI_VMM_TRY(
        failed("cublasLtMatmulDescCreate", lt_.product_create(&product_, cuda_compute(p.arithmetic, p.type), 0)));
    for (auto [attribute, transposed] :
         {std::pair<int, bool>(CublasLt::kTransposeA, b->transposed), {CublasLt::kTransposeB, a->transposed}}) {
      const int32_t how = transposed;
      AI_VMM_TRY(failed("cublasLtMatmulDescSetAttribute", lt_.product_set(product_, attribute, &how, sizeof how)));
    }
    AI_VMM_TRY(layout(0, type, p.n, p.k, *b, p.batches, p.b_batch));
    AI_VMM_TRY(layout(1, type, p.k, p.m, *a, p.batches, p.a_batch));
    AI_VMM_TRY(layout(2, type, p.n, p.m, {false, p.n}, p.batches, p.m * p.n));
    Handle preference = nullptr;
    AI_VMM_TRY(failed("cublasLtMatmulPreferenceCreate", lt_.preference_create(&preference)));
    const uint64_t most = kLibraryWorkspace;
    int error = lt_.preference_set(preference, CublasLt::kWorkspace, &most, sizeof most), found = 0;
    if (!error)
      error = lt_.heuristic(library_, product_, layouts_[0], layouts_[1], layouts_[2], layouts_[2], preference, 1,
                            &choice_, &found);
    lt_.preference_destroy(preference);
    AI_VMM_TRY(failed("cublasLtMatmulAlgoGetHeuristic", error));
    return found ? failed("cuBLASLt's choice", choice_.state)
                 : Status(Code::unimplemented, "cuBLASLt has no algorithm for this product.");
  }
  Status start(std::span<const uint64_t> at, Handle stream) override {
    const float zero = 0;
    int error = lt_.multiply(library_, product_, &alpha_, at[1], layouts_[0], at[0], layouts_[1], &zero, at[2],
                             layouts_[2], at[2], layouts_[2], choice_.algorithm, at[3], kLibraryWorkspace, stream);
    return error ? Status(Code::internal, "cublasLtMatmul failed with error " + std::to_string(error) + ".") : Status();
  }

 private:
  Status layout(size_t k, int type, int64_t rows, int64_t columns, Columns c, int64_t batches, int64_t stride) {
    AI_VMM_TRY(failed("cublasLtMatrixLayoutCreate",
                      lt_.layout_create(&layouts_[k], type, uint64_t(c.transposed ? columns : rows),
                                        uint64_t(c.transposed ? rows : columns), c.leading)));
    const int32_t count = int32_t(batches);
    AI_VMM_TRY(failed("cublasLtMatrixLayoutSetAttribute",
                      lt_.layout_set(layouts_[k], CublasLt::kBatchCount, &count, sizeof count)));
    return failed("cublasLtMatrixLayoutSetAttribute",
                  lt_.layout_set(layouts_[k], CublasLt::kBatchStride, &stride, sizeof stride));
  }
  const CublasLt& lt_;
  Handle library_, product_ = nullptr, layouts_[3] = {};
  CublasLt::Heuristic choice_{};
  float alpha_ = 1;
};

// ---------------------------------------------------------------- cuDNN

// Declared after NVIDIA's manual of cuDNN 8 and 9.
struct Cudnn : Library {
  struct Choice {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
  };
  enum : int { kNchw = 0, kCrossCorrelation = 1, kTensorOp = 1, kTensorOpRounding = 2, kFma = 3 };
  Symbol<size_t()> version{this, "cudnnGetVersion"};
  Symbol<int(Handle*)> create{this, "cudnnCreate"};
  Symbol<int(Handle)> destroy{this, "cudnnDestroy"};
  Symbol<int(Handle, Handle stream)> set_stream{this, "cudnnSetStream"};
  Symbol<int(Handle*)> tensor_create{this, "cudnnCreateTensorDescriptor"};
  Symbol<int(Handle)> tensor_destroy{this, "cudnnDestroyTensorDescriptor"};
  Symbol<int(Handle, int format, int type, int n, int c, int h, int w)> tensor_set{this, "cudnnSetTensor4dDescriptor"};
  Symbol<int(Handle*)> filter_create{this, "cudnnCreateFilterDescriptor"};
  Symbol<int(Handle)> filter_destroy{this, "cudnnDestroyFilterDescriptor"};
  Symbol<int(Handle, int type, int format, int k, int c, int h, int w)> filter_set{this, "cudnnSetFilter4dDescriptor"};
  Symbol<int(Handle*)> conv_create{this, "cudnnCreateConvolutionDescriptor"};
  Symbol<int(Handle)> conv_destroy{this, "cudnnDestroyConvolutionDescriptor"};
  Symbol<int(Handle, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h, int dilation_w, int mode,
             int compute)>
      conv_set{this, "cudnnSetConvolution2dDescriptor"};
  Symbol<int(Handle, int)> conv_groups{this, "cudnnSetConvolutionGroupCount"};
  Symbol<int(Handle, int)> conv_math{this, "cudnnSetConvolutionMathType"};
  Symbol<int(Handle, Handle x, Handle w, Handle conv, Handle y, int wanted, int* found, Choice*)> choose{
      this, "cudnnGetConvolutionForwardAlgorithm_v7"};
  Symbol<int(Handle, const void* alpha, Handle x_type, uint64_t x, Handle w_type, uint64_t w, Handle conv,
             int algorithm, uint64_t workspace, size_t workspace_bytes, const void* beta, Handle y_type, uint64_t y)>
      forward{this, "cudnnConvolutionForward"};
};

int cudnn_type(DType t) { return t == DType::f32 ? 0 : t == DType::f16 ? 2 : t == DType::bf16 ? 9 : kNotThere; }

class CudnnConvolution : public LibraryWork {
 public:
  CudnnConvolution(const Cudnn& dnn, Handle library, std::mutex& one) : dnn_(dnn), library_(library), one_(one) {}
  ~CudnnConvolution() override {
    for (Handle t : {x_, y_})
      if (t) dnn_.tensor_destroy(t);
    if (w_) dnn_.filter_destroy(w_);
    if (conv_) dnn_.conv_destroy(conv_);
  }
  Status prepare(const LibraryConvolution& c) {
    // Padding is the same on both sides for cuDNN.
    auto fits = [](int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
      return in + 2 * pad >= (kernel - 1) * dilation + 1 &&
             (in + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1 == out;
    };
    if (!fits(c.h, c.oh, c.kh, c.sh, c.dh, c.top) || !fits(c.w, c.ow, c.kw, c.sw, c.dw, c.left))
      return Status(Code::unimplemented, "cuDNN takes no padding that differs between sides.");
    const int type = cudnn_type(c.type);
    AI_VMM_TRY(failed("cudnnCreateTensorDescriptor", dnn_.tensor_create(&x_)));
    AI_VMM_TRY(failed("cudnnCreateTensorDescriptor", dnn_.tensor_create(&y_)));
    AI_VMM_TRY(failed("cudnnCreateFilterDescriptor", dnn_.filter_create(&w_)));
    AI_VMM_TRY(failed("cudnnCreateConvolutionDescriptor", dnn_.conv_create(&conv_)));
    AI_VMM_TRY(failed("cudnnSetTensor4dDescriptor",
                      dnn_.tensor_set(x_, Cudnn::kNchw, type, int(c.n), int(c.c), int(c.h), int(c.w))));
    AI_VMM_TRY(failed("cudnnSetTensor4dDescriptor",
                      dnn_.tensor_set(y_, Cudnn::kNchw, type, int(c.n), int(c.o), int(c.oh), int(c.ow))));
    AI_VMM_TRY(failed("cudnnSetFilter4dDescriptor",
                      dnn_.filter_set(w_, type, Cudnn::kNchw, int(c.o), int(c.c / c.groups), int(c.kh), int(c.kw))));
    AI_VMM_TRY(failed("cudnnSetConvolution2dDescriptor",
                      dnn_.conv_set(conv_, int(c.top), int(c.left), int(c.sh), int(c.sw), int(c.dh), int(c.dw),
                                    Cudnn::kCrossCorrelation, cudnn_type(DType::f32))));
    AI_VMM_TRY(failed("cudnnSetConvolutionGroupCount", dnn_.conv_groups(conv_, int(c.groups))));
    // Its own default rounds float32 to tf32.
    const int math = c.type != DType::f32               ? Cudnn::kTensorOp
                     : c.arithmetic == Arithmetic::f32  ? Cudnn::kFma
                     : c.arithmetic == Arithmetic::tf32 ? Cudnn::kTensorOp
                                                        : Cudnn::kTensorOpRounding;
    AI_VMM_TRY(failed("cudnnSetConvolutionMathType", dnn_.conv_math(conv_, math)));
    Cudnn::Choice choices[8] = {};
    int found = 0;
    std::lock_guard lock(one_);
    AI_VMM_TRY(
        failed("cudnnGetConvolutionForwardAlgorithm_v7", dnn_.choose(library_, x_, w_, conv_, y_, 8, &found, choices)));
    for (int i = 0; i < found; ++i)
      if (choices[i].status == 0 && choices[i].memory <= size_t(kLibraryWorkspace)) {
        choice_ = choices[i];
        return failed("cudnnSetConvolutionMathType", dnn_.conv_math(conv_, choice_.math));
      }
    return Status(Code::unimplemented, "cuDNN has no algorithm for this convolution.");
  }
  Status start(std::span<const uint64_t> at, Handle stream) override {
    const float one = 1, zero = 0;
    std::lock_guard lock(one_);
    int error = dnn_.set_stream(library_, stream);
    if (!error)
      error = dnn_.forward(library_, &one, x_, at[0], w_, at[1], conv_, choice_.algorithm, at[3], kLibraryWorkspace,
                           &zero, y_, at[2]);
    return error ? Status(Code::internal, "cudnnConvolutionForward failed with error " + std::to_string(error) + ".")
                 : Status();
  }

 private:
  const Cudnn& dnn_;
  Handle library_, x_ = nullptr, y_ = nullptr, w_ = nullptr, conv_ = nullptr;
  std::mutex& one_;  // a cuDNN handle is used by one thread at a time
  Cudnn::Choice choice_{};
};

// ---------------------------------------------------------------- hipBLAS

// Declared after AMD's manual; this function has been the same since ROCm 2.
struct HipBlas : Library {
  enum : int { kPlain = 111, kTransposed = 112 };
  Symbol<int(Handle*)> create{this, "hipblasCreate"};
  Symbol<int(Handle)> destroy{this, "hipblasDestroy"};
  Symbol<int(Handle, Handle stream)> set_stream{this, "hipblasSetStream"};
  Symbol<int(Handle, int a_how, int b_how, int m, int n, int k, const float* alpha, uint64_t a, int a_leading,
             long long a_stride, uint64_t b, int b_leading, long long b_stride, const float* beta, uint64_t c,
             int c_leading, long long c_stride, int batches)>
      multiply{this, "hipblasSgemmStridedBatched"};
};

class HipProduct : public LibraryWork {
 public:
  HipProduct(const HipBlas& blas, Handle library, std::mutex& one, const LibraryProduct& p, Columns a, Columns b)
      : blas_(blas), library_(library), one_(one), p_(p), a_(a), b_(b) {}
  Status start(std::span<const uint64_t> at, Handle stream) override {
    const float zero = 0;
    auto how = [](Columns c) { return c.transposed ? HipBlas::kTransposed : HipBlas::kPlain; };
    std::lock_guard lock(one_);
    int error = blas_.set_stream(library_, stream);
    if (!error)
      error = blas_.multiply(library_, how(b_), how(a_), int(p_.n), int(p_.m), int(p_.k), &p_.alpha, at[1],
                             int(b_.leading), p_.b_batch, at[0], int(a_.leading), p_.a_batch, &zero, at[2], int(p_.n),
                             p_.m * p_.n, int(p_.batches));
    return error ? Status(Code::internal, "hipblasSgemmStridedBatched failed with error " + std::to_string(error) + ".")
                 : Status();
  }

 private:
  const HipBlas& blas_;
  Handle library_;
  std::mutex& one_;
  const LibraryProduct p_;
  const Columns a_, b_;
};

// ---------------------------------------------------------------- what is there

std::string version_text(size_t v, size_t unit) {
  return std::to_string(v / (unit * 100)) + "." + std::to_string(v / unit % 100) + "." + std::to_string(v % unit);
}

class Loaded : public Libraries {
 public:
  explicit Loaded(Dialect dialect) {
    if (dialect == Dialect::cuda) {
      if (open(lt_, "cuBLASLt", {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"}, "libcublasLt.so",
               {"nvidia/cu13/lib", "nvidia/cublas/lib"})) {
        // Before version 11 layouts and compute types had other numbers.
        const size_t version = lt_.version();
        if (version < 110000)
          absent("cuBLASLt", "version " + std::to_string(version) + " is older than 11");
        else if (int e = lt_.create(&lt_handle_))
          absent("cuBLASLt", "cublasLtCreate failed with error " + std::to_string(e));
        else
          present("cuBLASLt " + version_text(version, 100));
      }
      if (open(dnn_, "cuDNN", {"libcudnn.so.9", "libcudnn.so.8"}, "libcudnn.so", {"nvidia/cudnn/lib"})) {
        const size_t version = dnn_.version();
        if (version < 8000)
          absent("cuDNN", "version " + std::to_string(version) + " is older than 8");
        else if (int e = dnn_.create(&dnn_handle_))
          absent("cuDNN", "cudnnCreate failed with error " + std::to_string(e));
        else
          present("cuDNN " + (version >= 90000 ? version_text(version, 100) : version_text(version * 10, 1000)));
      }
    } else if (open(blas_, "hipBLAS", {"libhipblas.so.3", "libhipblas.so.2", "libhipblas.so.1", "libhipblas.so.0"}, "",
                    {})) {
      if (int e = blas_.create(&blas_handle_))
        absent("hipBLAS", "hipblasCreate failed with error " + std::to_string(e));
      else
        present("hipBLAS");
    }
    if (names_.empty()) names_ = "none";
  }
  ~Loaded() override {
    if (lt_handle_) lt_.destroy(lt_handle_);
    if (dnn_handle_) dnn_.destroy(dnn_handle_);
    if (blas_handle_) blas_.destroy(blas_handle_);
  }
  const std::string& names() const override { return names_; }

  Result<std::unique_ptr<LibraryWork>> product(const LibraryProduct& p) override {
    if (p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX || p.batches > 65535)
      return Status(Code::unimplemented, "The product is too large for the library.");
    if (lt_handle_ && cuda_type(p.type) != kNotThere) {
      auto work = std::make_unique<LtProduct>(lt_, lt_handle_);
      AI_VMM_TRY(work->prepare(p));
      return std::unique_ptr<LibraryWork>(std::move(work));
    }
    if (blas_handle_ && p.type == DType::f32 && p.arithmetic == Arithmetic::f32) {
      auto b = in_columns(p.n, p.k, p.bn, p.bk), a = in_columns(p.k, p.m, p.ak, p.am);
      if (!a || !b) return Status(Code::unimplemented, "No side of a matrix is dense.");
      return std::unique_ptr<LibraryWork>(new HipProduct(blas_, blas_handle_, one_, p, *a, *b));
    }
    return Status(Code::unimplemented, "No library takes this product.");
  }
  Result<std::unique_ptr<LibraryWork>> convolution(const LibraryConvolution& c) override {
    if (!dnn_handle_ || cudnn_type(c.type) == kNotThere)
      return Status(Code::unimplemented, "No library takes this convolution.");
    auto work = std::make_unique<CudnnConvolution>(dnn_, dnn_handle_, one_);
    AI_VMM_TRY(work->prepare(c));
    return std::unique_ptr<LibraryWork>(std::move(work));
  }

 private:
  bool open(Library& library, const char* name, std::vector<std::string> files, const char* prefix,
            std::initializer_list<const char*> packages) {
    for (const char* package : packages)
      for (std::string& f : find_in_python_packages(package, prefix)) files.push_back(std::move(f));
    Status s = library.load(files);
    if (!s.ok()) absent(name, s.message());
    return s.ok();
  }
  void present(const std::string& what) { names_ += (names_.empty() ? "" : ", ") + what; }
  static void absent(const std::string& name, const std::string& why) {
    log(LogLevel::info, name + " takes no part, our own kernels serve all of it: " + why);
  }
  CublasLt lt_;
  Cudnn dnn_;
  HipBlas blas_;
  Handle lt_handle_ = nullptr, dnn_handle_ = nullptr, blas_handle_ = nullptr;
  std::mutex one_;
  std::string names_;
};

}  // namespace

std::unique_ptr<Libraries> Libraries::load(Dialect dialect) { return std::make_unique<Loaded>(dialect); }

}  // namespace ai_vmm::gpu
