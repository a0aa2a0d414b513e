// Checkpoint files in JavaScript: NativeMappedFile, tensors over a file's bytes, quantising a tensor to block FP8.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "bindings/addon.h"
#include "io/fp8.h"
#include "io/safetensors.h"
#include "runtime/memory.h"

namespace longcat {

namespace {

Napi::Array entriesOf(Napi::Env env, const MappedFile& file) {
  Napi::Array list = Napi::Array::New(env, file.entries().size());
  uint32_t i = 0;
  for (const SafetensorsEntry& entry : file.entries()) {
    Napi::HandleScope scope(env);
    Napi::Array shape = Napi::Array::New(env, entry.shape.size());
    for (uint32_t d = 0; d < entry.shape.size(); ++d) shape[d] = Napi::Number::New(env, static_cast<double>(entry.shape[d]));
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", entry.name);
    object.Set("dtype", Napi::Number::New(env, entry.dtype));
    object.Set("storedDtype", entry.storedDtype);
    object.Set("shape", shape);
    object.Set("begin", Napi::Number::New(env, static_cast<double>(entry.begin)));
    object.Set("end", Napi::Number::New(env, static_cast<double>(entry.end)));
    list[i++] = object;
  }
  return list;
}

/// NativeMappedFile: the file is open until close(); tensors over it keep the mapping beyond.
class MappedFileObject final : public Napi::ObjectWrap<MappedFileObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeMappedFile", {InstanceMethod<&MappedFileObject::close>("close")});
  }

  explicit MappedFileObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    const Napi::Env env = info.Env();
    guarded(env, [&] {
      file_ = MappedFile::open(stringArg(info[0], "path"));
      Napi::Object self = info.This().As<Napi::Object>();
      tagObject(self, ObjectKind::mappedFile);
      self.Set("path", file_->path());
      self.Set("bytes", Napi::Number::New(env, static_cast<double>(file_->bytes())));
      self.Set("entries", entriesOf(env, *file_));
    });
  }

  const MappedFile& file() const {
    if (!file_) throw Error("DISPOSED", "the checkpoint file is closed");
    return *file_;
  }

  static const MappedFile& of(Napi::Value value) {
    return Unwrap(taggedObject(value, ObjectKind::mappedFile, "the file"))->file();
  }

 private:
  void close(const Napi::CallbackInfo&) { file_.reset(); }

  std::shared_ptr<MappedFile> file_;
};

/// The file's own entry that `entry.begin` and `entry.name` point to: what JavaScript holds is a copy, never believed.
const SafetensorsEntry& ownEntry(const MappedFile& file, Napi::Value value) {
  if (!value.IsObject()) throw Error("INTERNAL", "the entry is not an object");
  const Napi::Object object = value.As<Napi::Object>();
  const std::string name = stringArg(object.Get("name"), "entry.name");
  const uint64_t begin = static_cast<uint64_t>(integerArg(object.Get("begin"), "entry.begin"));
  const auto& entries = file.entries();  // sorted by begin; tensors without elements may share one
  auto at = std::lower_bound(entries.begin(), entries.end(), begin, [](const SafetensorsEntry& e, uint64_t b) { return e.begin < b; });
  while (at != entries.end() && at->begin == begin && at->name != name) ++at;
  if (at == entries.end() || at->begin != begin) throw Error("INTERNAL", "tensor \"" + forMessage(name) + "\" is not in " + forMessage(file.path()));
  return *at;
}

[[noreturn]] void refuse(const MappedFile& file, const SafetensorsEntry& entry, const char* code, const std::string& problem) {
  throw Error(code, forMessage(file.path(), 120) + ": tensor \"" + forMessage(entry.name, 80) + "\" " + problem);
}

Napi::Value openSafetensors(const Napi::CallbackInfo& info) {
  return addonOf(info.Env()).mappedFileClass.New({info[0]});
}

Napi::Value quantizeFp8(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const MappedFile& file = MappedFileObject::of(info[0]);
    const SafetensorsEntry& entry = ownEntry(file, info[1]);
    const bool plain = entry.dtype == static_cast<int32_t>(DType::f32) || entry.dtype == static_cast<int32_t>(DType::bf16);
    if (!plain || entry.shape.size() != 2) refuse(file, entry, "CHECKPOINT_INVALID", "is not a matrix of F32 or BF16, so it cannot be quantised");
    Fp8Matrix out;
    try {
      out = quantizeToFp8(file.buffer()->data() + entry.begin, static_cast<DType>(entry.dtype), entry.shape[0], entry.shape[1]);
    } catch (const Error& error) {
      refuse(file, entry, "CHECKPOINT_INVALID", error.what());
    }
    Napi::Uint8Array data = Napi::Uint8Array::New(env, out.codes.size());
    std::copy(out.codes.begin(), out.codes.end(), data.Data());
    Napi::Float32Array scale = Napi::Float32Array::New(env, out.scales.size());
    std::copy(out.scales.begin(), out.scales.end(), scale.Data());
    Napi::Object result = Napi::Object::New(env);
    result.Set("data", data);
    result.Set("scale", scale);
    return result;
  });
}

}  // namespace

Tensor tensorFromFile(Napi::Value fileValue, Napi::Value entryValue) {
  const MappedFile& file = MappedFileObject::of(fileValue);
  const SafetensorsEntry& entry = ownEntry(file, entryValue);
  if (entry.dtype == kNoDType) refuse(file, entry, "CHECKPOINT_UNSUPPORTED", "is " + entry.storedDtype + "; accepted: F32, BF16, F8_E4M3");
  if (entry.shape.size() > kMaxRank) refuse(file, entry, "CHECKPOINT_INVALID", "has " + std::to_string(entry.shape.size()) + " dimensions; at most 4 are possible");
  Tensor tensor;
  tensor.dtype = static_cast<DType>(entry.dtype);
  tensor.rank = static_cast<int>(entry.shape.size());
  std::copy(entry.shape.begin(), entry.shape.end(), tensor.shape);
  tensor.rowStride = 1;
  for (int i = 1; i < tensor.rank; ++i) tensor.rowStride *= tensor.shape[i];
  tensor.buffer = file.buffer();
  tensor.data = file.buffer()->data() + entry.begin;
  if (entry.begin % bytesOf(tensor.dtype) != 0) {  // legal, since a header may have any length, but operations want aligned numbers
    const size_t bytes = static_cast<size_t>(entry.end - entry.begin);
    tensor.buffer = allocateBuffer(bytes, "an unaligned tensor");
    std::memcpy(tensor.buffer->data(), tensor.data, bytes);
    tensor.data = tensor.buffer->data();
  }
  return tensor;
}

void RegisterWeights(Napi::Env env, Napi::Object exports) {
  addonOf(env).mappedFileClass = Napi::Persistent(MappedFileObject::define(env));
  exports.Set("openSafetensors", Napi::Function::New(env, openSafetensors, "openSafetensors"));
  exports.Set("quantizeFp8", Napi::Function::New(env, quantizeFp8, "quantizeFp8"));
}

}  // namespace longcat
