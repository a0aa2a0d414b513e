// The environment's state, errors and checks; the exports that belong to no object.
#include "bindings/addon.h"

#include <cmath>
#include <new>

#include "ops/mla_decode/params.h"
#include "ops/registry.h"
#include "runtime/processor.h"
#include "runtime/thread_pool.h"

namespace longcat {

Addon& addonOf(Napi::Env env) { return *env.GetInstanceData<Addon>(); }

Napi::Error jsError(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

Napi::Error toJsError(Napi::Env env, const std::exception& error) {
  if (const auto* own = dynamic_cast<const Error*>(&error)) return jsError(env, own->code(), own->what());
  if (dynamic_cast<const std::bad_alloc*>(&error)) return jsError(env, "OUT_OF_MEMORY", "the process has no memory left");
  return jsError(env, "INTERNAL", error.what());
}

namespace {

constexpr napi_type_tag kTags[] = {{0x6c6f6e6763617401, 0x9d1f2f8e5b7c4a11}, {0x6c6f6e6763617402, 0x9d1f2f8e5b7c4a12}};

const char* nameOf(Use use) { return use == Use::in ? "in" : use == Use::out ? "out" : "inout"; }

Napi::Value opInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int count = 0;
  const OpSpec* const* ops = allOps(&count);
  Napi::Array list = Napi::Array::New(env, count);
  for (int i = 0; i < count; ++i) {
    const OpSpec& spec = *ops[i];
    Napi::Array tensors = Napi::Array::New(env, spec.numTensors);
    for (int t = 0; t < spec.numTensors; ++t) {
      Napi::Object tensor = Napi::Object::New(env);
      tensor.Set("name", spec.tensors[t].name);
      tensor.Set("use", nameOf(spec.tensors[t].use));
      tensor.Set("optional", Napi::Boolean::New(env, spec.tensors[t].optional));
      tensors[static_cast<uint32_t>(t)] = tensor;
    }
    Napi::Array scalars = Napi::Array::New(env, spec.numScalars);
    for (int s = 0; s < spec.numScalars; ++s) scalars[static_cast<uint32_t>(s)] = Napi::String::New(env, spec.scalars[s]);
    Napi::Object op = Napi::Object::New(env);
    op.Set("name", spec.name);
    op.Set("tensors", tensors);
    op.Set("scalars", scalars);
    list[static_cast<uint32_t>(i)] = op;
  }
  return list;
}

}  // namespace

void tagObject(Napi::Object object, ObjectKind kind) {
  if (napi_type_tag_object(object.Env(), object, &kTags[static_cast<int>(kind)]) != napi_ok) throw Napi::Error::New(object.Env());
}

Napi::Object taggedObject(Napi::Value value, ObjectKind kind, const char* what) {
  bool fits = false;
  if (value.IsObject()) napi_check_object_type_tag(value.Env(), value, &kTags[static_cast<int>(kind)], &fits);
  if (!fits) throw jsError(value.Env(), "INTERNAL", std::string(what) + " is not an object of this addon's");
  return value.As<Napi::Object>();
}

int64_t integerArg(Napi::Value value, const char* what) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(std::abs(number) <= 9007199254740991.0) || number != std::floor(number)) {
    throw jsError(value.Env(), "INTERNAL", std::string(what) + " is not an integer");
  }
  return static_cast<int64_t>(number);
}

int threadsArg(Napi::Value value) {
  const int64_t threads = integerArg(value, "threads");
  require(threads >= 1 && threads <= kMaxThreads, "threads is 1 to " + std::to_string(kMaxThreads) + ", not " + std::to_string(threads));
  return static_cast<int>(threads);
}

std::string stringArg(Napi::Value value, const char* what) {
  if (!value.IsString()) throw jsError(value.Env(), "INTERNAL", std::string(what) + " is not a string");
  return value.As<Napi::String>().Utf8Value();
}

Bytes bytesArg(Napi::Value value, const char* what) {
  if (value.IsTypedArray()) {
    const Napi::TypedArray array = value.As<Napi::TypedArray>();
    return {static_cast<std::byte*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ByteLength()};
  }
  if (value.IsDataView()) {
    const Napi::DataView view = value.As<Napi::DataView>();
    return {static_cast<std::byte*>(view.Data()), view.ByteLength()};
  }
  throw jsError(value.Env(), "INTERNAL", std::string(what) + " is not a typed array or DataView");
}

DType dtypeArg(Napi::Value value) {
  const int64_t number = integerArg(value, "dtype");
  if (number < 0 || number > static_cast<int64_t>(DType::u8)) throw jsError(value.Env(), "INTERNAL", "no element type has number " + std::to_string(number));
  return static_cast<DType>(number);
}

void registerAddon(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Addon());
  exports.Set("version", Napi::String::New(env, LONGCAT_VERSION));
  exports.Set("splitKeys", Napi::Number::New(env, static_cast<double>(kSplitKeys)));
  exports.Set("ops", Napi::Function::New(env, opInfo, "ops"));
  exports.Set("availableMemory",
              Napi::Function::New(
                  env,
                  [](const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), static_cast<double>(availableMemory())); },
                  "availableMemory"));
  exports.Set("availableThreads",
              Napi::Function::New(env, [](const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), availableThreads()); },
                                  "availableThreads"));
  exports.Set("bestIsa",
              Napi::Function::New(env, [](const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), nameOf(bestIsa())); },
                                  "bestIsa"));
  RegisterDevice(env, exports);
  RegisterCommunicator(env, exports);
  RegisterMeasure(env, exports);
  RegisterWeights(env, exports);
}

}  // namespace longcat
