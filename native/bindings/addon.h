// What the binding files share: the state of one JavaScript environment, errors on their way to JavaScript, checked objects.
// There are no globals: every worker thread that loads the addon has an Addon of its own.
#pragma once

#include <napi.h>

#include <exception>
#include <string>

#include "runtime/error.h"
#include "runtime/tensor.h"

namespace longcat {

/// The state of one environment.
struct Addon {
  Napi::FunctionReference deviceClass;
  Napi::FunctionReference mappedFileClass;
};

Addon& addonOf(Napi::Env env);

/// A C++ exception as a JavaScript Error with `code` (INTERNAL unless it is a longcat::Error; OUT_OF_MEMORY for bad_alloc).
Napi::Error toJsError(Napi::Env env, const std::exception& error);
Napi::Error jsError(Napi::Env env, const std::string& code, const std::string& message);

/// Runs `f`; what it throws reaches JavaScript as above. Every function that JavaScript calls is wrapped in this.
template <class F>
auto guarded(Napi::Env env, F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw toJsError(env, error);
  }
}

/// Kinds of native objects: a JavaScript object is taken for one only if it carries the tag.
enum class ObjectKind : int { device = 0, mappedFile = 1 };
void tagObject(Napi::Object object, ObjectKind kind);
/// Throws INTERNAL naming `what` unless `value` is an object with that tag.
Napi::Object taggedObject(Napi::Value value, ObjectKind kind, const char* what);

/// Checked conversions of arguments; messages name `what`.
int64_t integerArg(Napi::Value value, const char* what);
/// A number of threads, 1 to kMaxThreads.
int threadsArg(Napi::Value value);
std::string stringArg(Napi::Value value, const char* what);

/// Memory of a TypedArray or DataView.
struct Bytes {
  std::byte* data = nullptr;
  size_t size = 0;
};
Bytes bytesArg(Napi::Value value, const char* what);
DType dtypeArg(Napi::Value value);

class DeviceObject;
/// Puts a tensor into the device's table; the id that JavaScript knows it by.
int registerTensor(DeviceObject& device, Tensor tensor);

// Each file of this folder adds its part of the exports.
void RegisterDevice(Napi::Env env, Napi::Object exports);
/// ncclUniqueId (communicator.cc).
void RegisterCommunicator(Napi::Env env, Napi::Object exports);
void RegisterMeasure(Napi::Env env, Napi::Object exports);
/// openSafetensors, quantizeFp8 (weights.cc).
void RegisterWeights(Napi::Env env, Napi::Object exports);
/// A tensor over a mapped file's bytes: `file` and `entry` as NativeDevice.fromFile gets them (weights.cc).
Tensor tensorFromFile(Napi::Value file, Napi::Value entry);

void registerAddon(Napi::Env env, Napi::Object exports);

}  // namespace longcat
