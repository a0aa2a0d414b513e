// NativeDevice's methods: checks, and calls of the runtime.
#include "bindings/device.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "bindings/communicator.h"
#include "ops/registry.h"
#include "runtime/gpus.h"
#include "runtime/host_words.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

/// shape: number[] of 1 to 4 entries
struct ShapeArg {
  int rank = 0;
  int64_t size[kMaxRank] = {};

  explicit ShapeArg(Napi::Value value) {
    require(value.IsArray(), "a shape is not an array");
    const Napi::Array array = value.As<Napi::Array>();
    require(array.Length() >= 1 && array.Length() <= kMaxRank, "a shape has 1 to 4 entries, not " + std::to_string(array.Length()));
    rank = static_cast<int>(array.Length());
    for (int i = 0; i < rank; ++i) {
      size[i] = integerArg(array.Get(static_cast<uint32_t>(i)), "a shape's entry");
      require(size[i] >= 0, "a shape's entry is " + std::to_string(size[i]));
    }
  }
};

size_t sizeArg(Napi::Value value, const char* what) {
  const int64_t size = integerArg(value, what);
  require(size >= 0, std::string(what) + " is " + std::to_string(size));
  return static_cast<size_t>(size);
}

int queueArg(Napi::Value value) {
  const int64_t queue = integerArg(value, "queue");
  require(queue >= 0 && queue < kMaxQueues, "a queue's number is 0 to " + std::to_string(kMaxQueues - 1) + ", not " + std::to_string(queue));
  return static_cast<int>(queue);
}

/// A place: "device" or "host".
bool isHost(Napi::Value value) {
  const std::string place = stringArg(value, "place");
  require(place == "device" || place == "host", "a place is device or host, not " + place);
  return place == "host";
}

int eventArg(Napi::Value value) {
  const int64_t event = integerArg(value, "event");
  require(event >= 0 && event < kMaxEvents, "an event's number is 0 to " + std::to_string(kMaxEvents - 1) + ", not " + std::to_string(event));
  return static_cast<int>(event);
}

Napi::Value boolean(const Napi::CallbackInfo& info, bool value) { return Napi::Boolean::New(info.Env(), value); }
Napi::Value number(const Napi::CallbackInfo& info, double value) { return Napi::Number::New(info.Env(), value); }

/// A tensor of `shape` within `base`, from `byteOffset` on.
Tensor viewOf(const Tensor& base, DType dtype, const ShapeArg& shape, size_t byteOffset, int64_t rowStride) {
  require(!base.parts, "a stack cannot be viewed");
  Tensor view = base;
  view.dtype = dtype;
  view.rank = shape.rank;
  int64_t row = 1;
  for (int i = 0; i < kMaxRank; ++i) {
    view.shape[i] = i < shape.rank ? shape.size[i] : 1;
    if (i > 0) require(!__builtin_mul_overflow(row, view.shape[i], &row), "a view of more than 2^63 elements");
  }
  view.rowStride = rowStride == 0 ? row : rowStride;
  require(view.rowStride >= row, "a view's rows overlap: rowStride " + std::to_string(view.rowStride) + ", row " + std::to_string(row));
  int64_t elements = 0;
  const bool empty = row == 0 || view.shape[0] == 0;
  const bool fits = empty || (!__builtin_mul_overflow(view.shape[0] - 1, view.rowStride, &elements) &&
                              !__builtin_add_overflow(elements, row, &elements) &&
                              elements <= INT64_MAX / static_cast<int64_t>(bytesOf(dtype)));
  require(fits, "a view of more than 2^63 bytes");
  const size_t bytes = static_cast<size_t>(elements) * bytesOf(dtype), there = spanBytes(base);
  require(byteOffset <= there && bytes <= there - byteOffset, "a view of bytes " + std::to_string(byteOffset) + " to " +
              std::to_string(byteOffset + bytes) + " within a tensor of " + std::to_string(there) + " bytes");
  view.data = base.data + byteOffset;
  require(reinterpret_cast<uintptr_t>(view.data) % bytesOf(dtype) == 0,
          std::string("a view of ") + nameOf(dtype) + " at byte " + std::to_string(byteOffset) + " is not aligned");
  return view;
}

/// Tensors of one shape and dtype as a stack; it holds their buffers.
Tensor stackOf(const std::vector<Tensor>& tensors) {
  require(!tensors.empty(), "a stack of nothing");
  const Tensor& first = tensors[0];
  require(first.rank < kMaxRank, "a stack of tensors of 4 dimensions");
  struct Parts {
    std::vector<std::shared_ptr<Buffer>> buffers;
    std::vector<const std::byte*> data;
  };
  auto parts = std::make_shared<Parts>();
  for (const Tensor& tensor : tensors) {
    require(!tensor.parts && tensor.contiguous(), "a stack's part is not dense");
    require(tensor.dtype == first.dtype && tensor.rank == first.rank && std::memcmp(tensor.shape, first.shape, sizeof first.shape) == 0,
            "a stack's parts differ in shape or dtype");
    parts->data.push_back(tensor.data);
    if (parts->buffers.empty() || parts->buffers.back() != tensor.buffer) parts->buffers.push_back(tensor.buffer);
  }
  Tensor stack;
  stack.dtype = first.dtype;
  stack.rank = first.rank + 1;
  stack.shape[0] = static_cast<int64_t>(tensors.size());
  for (int i = 0; i < first.rank; ++i) stack.shape[i + 1] = first.shape[i];
  stack.rowStride = first.elements();
  stack.parts = std::shared_ptr<const std::vector<const std::byte*>>(parts, &parts->data);
  return stack;
}

}  // namespace

int registerTensor(DeviceObject& device, Tensor tensor) { return device.addTensor(std::move(tensor)); }

Napi::Function DeviceObject::define(Napi::Env env) {
  using D = DeviceObject;
#define LONGCAT_METHOD(name) D::InstanceMethod<&D::guard<&D::name>>(#name)
  return DefineClass(
      env, "NativeDevice",
      {D::InstanceAccessor<&D::kind>("kind"), D::InstanceAccessor<&D::threads>("threads"), D::InstanceAccessor<&D::isa>("isa"),
       LONGCAT_METHOD(allocate), LONGCAT_METHOD(view), LONGCAT_METHOD(fromFile), LONGCAT_METHOD(stack), LONGCAT_METHOD(convert),
       LONGCAT_METHOD(window), LONGCAT_METHOD(joinWindows), LONGCAT_METHOD(hostWords), LONGCAT_METHOD(getWord), LONGCAT_METHOD(setWord),
       LONGCAT_METHOD(release), LONGCAT_METHOD(allocatedBytes), LONGCAT_METHOD(eagerGraphs), LONGCAT_METHOD(freeBytes), LONGCAT_METHOD(reserve), LONGCAT_METHOD(signal), LONGCAT_METHOD(wait), LONGCAT_METHOD(enqueue), LONGCAT_METHOD(write), LONGCAT_METHOD(read),
       LONGCAT_METHOD(fill), LONGCAT_METHOD(copy), LONGCAT_METHOD(done), LONGCAT_METHOD(room), LONGCAT_METHOD(freeSlots),
       LONGCAT_METHOD(beginRecord), LONGCAT_METHOD(endRecord), LONGCAT_METHOD(replay), LONGCAT_METHOD(releaseGraph),
       LONGCAT_METHOD(joinNccl), LONGCAT_METHOD(close)});
#undef LONGCAT_METHOD
}

DeviceObject::DeviceObject(Info info) : ObjectWrap(info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsExternal()) throw jsError(env, "INTERNAL", "devices are made by openDevice");
  guarded(env, [&] {
    const DeviceOptions& options = *info[0].As<Napi::External<DeviceOptions>>().Data();
    threads_ = options.threads;
    isa_ = options.isa;
    gpu_ = options.gpu;
    tagObject(info.This().As<Napi::Object>(), ObjectKind::device);
    channel_ = new Channel{this};
    const napi_status status = napi_create_threadsafe_function(
        env, nullptr, nullptr, Napi::String::New(env, "longcat"), 0, 1, channel_,
        [](napi_env, void* channel, void*) { delete static_cast<Channel*>(channel); }, channel_, onNotify, &notifier_);
    if (status != napi_ok) {
      delete std::exchange(channel_, nullptr);
      throw Error("INTERNAL", "Node made no thread-safe function");
    }
    napi_unref_threadsafe_function(env, notifier_);
    // Hooks run in the reverse order: this one before Node takes the notifier away.
    napi_add_env_cleanup_hook(env, onEnvironmentEnd, this);
    hooked_ = true;
    const napi_threadsafe_function notifier = notifier_;
    try {
      device_ = std::make_unique<Device>(options, [notifier] { napi_call_threadsafe_function(notifier, nullptr, napi_tsfn_nonblocking); });
    } catch (...) {
      shutDown();
      throw;
    }
  });
}

DeviceObject::~DeviceObject() { shutDown(); }

/// Joins the owner thread and gives everything back; what is enqueued is abandoned.
void DeviceObject::shutDown() {
  device_.reset();
  tensors_.clear();
  graphs_.clear();
  if (hooked_) napi_remove_env_cleanup_hook(Env(), onEnvironmentEnd, this);
  hooked_ = false;
  if (channel_) channel_->object = nullptr;
  channel_ = nullptr;
  if (notifier_) napi_release_threadsafe_function(notifier_, napi_tsfn_abort);
  notifier_ = nullptr;
}

void DeviceObject::onEnvironmentEnd(void* object) {
  auto* self = static_cast<DeviceObject*>(object);
  self->hooked_ = false;
  self->device_.reset();
  // Node's own hook takes the notifier, and the channel with it.
  self->channel_->object = nullptr;
  self->channel_ = nullptr;
  self->notifier_ = nullptr;
}

// ---- Promises -----------------------------------------------------------------------------------------------------------

/// A place for a promise. While there is any, this object and the event loop stay alive.
int DeviceObject::addPending(Napi::Env env, Napi::Value into) {
  if (freePending_.empty()) {
    freePending_.push_back(static_cast<int>(pending_.size()));
    pending_.emplace_back();
  }
  const int token = freePending_.back();
  freePending_.pop_back();
  Pending& pending = pending_[token];
  pending.deferred = std::make_unique<Napi::Promise::Deferred>(env);
  if (!into.IsEmpty()) pending.into = Napi::Persistent(into.As<Napi::Object>());
  if (numPending_++ == 0) {
    Ref();
    if (notifier_) napi_ref_threadsafe_function(env, notifier_);
  }
  return token;
}

void DeviceObject::dropPending(int token) {
  pending_[token] = Pending();
  freePending_.push_back(token);
  if (--numPending_ == 0) {
    if (notifier_) napi_unref_threadsafe_function(Env(), notifier_);
    Unref();
  }
}

void DeviceObject::onNotify(napi_env env, napi_value, void* context, void*) {
  DeviceObject* object = static_cast<Channel*>(context)->object;
  if (!env || !object) return;  // the environment ends
  try {
    object->settleAll(env);
  } catch (const Napi::Error&) {
    // JavaScript cannot run any more: its thread is being terminated.
  }
}

void DeviceObject::settleAll(Napi::Env env) {
  const Napi::HandleScope scope(env);
  bool finished = false;
  for (const Completion& completion : device_->takeCompletions()) {
    finished = finished || completion.token == closeToken_;
    settle(env, completion);
  }
  if (finished) closed();
}

void DeviceObject::settle(Napi::Env env, const Completion& completion) {
  if (completion.token == closeToken_) return;  // closed() settles it, after everything is freed
  Pending& pending = pending_[completion.token];
  Napi::Value failure;
  if (completion.fault) {
    device_->telling(*completion.fault);
    failure = jsError(env, completion.fault->code, completion.fault->message).Value();
  } else if (completion.read) {
    const Bytes into = bytesArg(pending.into.Value(), "the buffer of a read");
    if (into.data && into.size >= completion.read->size()) std::memcpy(into.data, completion.read->data(), completion.read->size());
    else if (completion.read->size() > 0) failure = jsError(env, "INTERNAL", "the buffer of a read was detached meanwhile").Value();
  }
  if (completion.read) device_->recycle(completion.read);
  if (failure.IsEmpty()) pending.deferred->Resolve(Napi::Number::New(env, completion.ms));
  else pending.deferred->Reject(failure);
  dropPending(completion.token);
}

void DeviceObject::closed() {
  const Napi::Env env = Env();
  const int token = std::exchange(closeToken_, -1);
  device_.reset();
  tensors_.clear();
  graphs_.clear();
  pending_[token].deferred->Resolve(env.Undefined());
  dropPending(token);
  shutDown();
}

Device& DeviceObject::device() {
  if (closing_ || !device_) throw Error("DISPOSED", "the device is closed");
  return *device_;
}

// ---- Methods ------------------------------------------------------------------------------------------------------------

Napi::Value DeviceObject::kind(Info info) { return Napi::String::New(info.Env(), gpu_ < 0 ? "cpu" : "cuda"); }
Napi::Value DeviceObject::threads(Info info) { return number(info, threads_); }
Napi::Value DeviceObject::isa(Info info) { return Napi::String::New(info.Env(), nameOf(isa_)); }

Napi::Value DeviceObject::allocate(Info info) {
  const ShapeArg shape(info[1]);
  return number(info, addTensor(device().allocate(dtypeArg(info[0]), shape.size, shape.rank, isHost(info[2]))));
}

Napi::Value DeviceObject::view(Info info) {
  device();
  const ShapeArg shape(info[2]);
  return number(info, addTensor(viewOf(tensor(info[0]), dtypeArg(info[1]), shape, sizeArg(info[3], "byteOffset"),
                                       static_cast<int64_t>(sizeArg(info[4], "rowStride")))));
}

Napi::Value DeviceObject::fromFile(Info info) {
  return number(info, registerTensor(*this, device().upload(tensorFromFile(info[0], info[1]), isHost(info[2]))));
}

Napi::Value DeviceObject::stack(Info info) {
  device();
  require(info[0].IsArray(), "the tensors of a stack are not an array");
  const Napi::Array ids = info[0].As<Napi::Array>();
  std::vector<Tensor> tensors;
  for (uint32_t i = 0; i < ids.Length(); ++i) tensors.push_back(tensor(ids.Get(i)));
  Tensor stack = stackOf(tensors);
  device().listParts(stack);
  return number(info, addTensor(std::move(stack)));
}

Napi::Value DeviceObject::convert(Info info) {
  const int64_t scale = integerArg(info[1], "scale");
  const Tensor from = tensor(info[0]);
  const Tensor scales = scale < 0 ? Tensor() : tensors_.at(static_cast<int>(scale));
  return number(info, addTensor(device().convert(from, scale < 0 ? nullptr : &scales, dtypeArg(info[2]))));
}

Napi::Value DeviceObject::window(Info info) {
  WindowHandle handle;
  Tensor tensor = device().createWindow(sizeArg(info[0], "bytes"), handle);
  Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), sizeof handle);
  std::memcpy(bytes.Data(), &handle, sizeof handle);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("tensor", number(info, addTensor(std::move(tensor))));
  result.Set("handle", bytes);
  return result;
}

Napi::Value DeviceObject::joinWindows(Info info) {
  require(info[2].IsArray(), "the handles of windows are not an array");
  const Napi::Array given = info[2].As<Napi::Array>();
  std::vector<WindowHandle> handles(given.Length());
  for (uint32_t i = 0; i < given.Length(); ++i) {
    const Bytes bytes = bytesArg(given.Get(i), "a window's handle");
    if (bytes.size == sizeof(WindowHandle)) std::memcpy(&handles[i], bytes.data, bytes.size);
    else handles[i].magic = 0;
  }
  return number(info, addTensor(device().joinWindows(tensor(info[0]), integerArg(info[1], "rank"), handles)));
}

Napi::Value DeviceObject::hostWords(Info info) {
  return number(info, addTensor(device().hostWords(static_cast<int64_t>(sizeArg(info[0], "count")))));
}

Napi::Value DeviceObject::getWord(Info info) { return number(info, hostWord(tensor(info[0]), integerArg(info[1], "index")).load()); }

Napi::Value DeviceObject::setWord(Info info) {
  hostWord(tensor(info[0]), integerArg(info[1], "index")).store(static_cast<int32_t>(integerArg(info[2], "value")));
  return info.Env().Undefined();
}

Napi::Value DeviceObject::release(Info info) {
  tensors_.remove(static_cast<int>(integerArg(info[0], "tensor")));
  return info.Env().Undefined();
}

Napi::Value DeviceObject::allocatedBytes(Info info) { return number(info, device_ ? static_cast<double>(device_->allocatedBytes()) : 0); }

Napi::Value DeviceObject::eagerGraphs(Info info) { return number(info, device_ ? device_->eagerGraphs() : 0); }

Napi::Value DeviceObject::freeBytes(Info info) { return number(info, static_cast<double>(device().freeBytes())); }

Napi::Value DeviceObject::reserve(Info info) {
  device().reserve(sizeArg(info[0], "bytes"));
  return info.Env().Undefined();
}

Napi::Value DeviceObject::signal(Info info) { return boolean(info, device().signal(queueArg(info[0]), eventArg(info[1]))); }
Napi::Value DeviceObject::wait(Info info) { return boolean(info, device().wait(queueArg(info[0]), eventArg(info[1]))); }

Napi::Value DeviceObject::enqueue(Info info) {
  int count = 0;
  const OpSpec* const* ops = allOps(&count);
  const int64_t op = integerArg(info[1], "operation");
  require(op >= 0 && op < count, "no operation has number " + std::to_string(op));
  require(info[2].IsTypedArray() && info[2].As<Napi::TypedArray>().TypedArrayType() == napi_int32_array, "tensors: an Int32Array is wanted");
  require(info[3].IsTypedArray() && info[3].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array, "scalars: a Float64Array is wanted");
  const Napi::Int32Array tensors = info[2].As<Napi::Int32Array>();
  const Napi::Float64Array scalars = info[3].As<Napi::Float64Array>();
  OpArgs args;
  require(tensors.ElementLength() <= kMaxTensors && scalars.ElementLength() <= kMaxScalars, std::string(ops[op]->name) + ": too many arguments");
  args.numTensors = static_cast<int>(tensors.ElementLength());
  args.numScalars = static_cast<int>(scalars.ElementLength());
  const int32_t* ids = tensors.Data();
  for (int i = 0; i < args.numTensors; ++i) args.tensor[i] = ids[i] == -1 ? nullptr : &tensors_.at(ids[i]);
  if (args.numScalars > 0) std::memcpy(args.scalar, scalars.Data(), static_cast<size_t>(args.numScalars) * sizeof(double));
  return boolean(info, device().enqueue(queueArg(info[0]), *ops[op], args));
}

Napi::Value DeviceObject::write(Info info) {
  const Bytes data = bytesArg(info[3], "data");
  return boolean(info, device().write(queueArg(info[0]), tensor(info[1]), sizeArg(info[2], "byteOffset"), data.data, data.size));
}

Napi::Value DeviceObject::read(Info info) {
  Device& to = device();
  const Bytes into = bytesArg(info[3], "into");
  const int queue = queueArg(info[0]);
  const Tensor& from = tensor(info[1]);
  const size_t byteOffset = sizeArg(info[2], "byteOffset");
  const int token = addPending(info.Env(), info[3]);
  const Napi::Value promise = pending_[token].deferred->Promise();
  try {
    if (!to.read(queue, from, byteOffset, into.size, token)) throw Error("INTERNAL", "the command ring is full: await queue.room() before reading");
  } catch (...) {
    dropPending(token);
    throw;
  }
  return promise;
}

Napi::Value DeviceObject::fill(Info info) {
  const int64_t byte = integerArg(info[2], "byte");
  require(byte >= 0 && byte <= 255, "a byte is 0 to 255, not " + std::to_string(byte));
  return boolean(info, device().fill(queueArg(info[0]), tensor(info[1]), static_cast<int>(byte)));
}

Napi::Value DeviceObject::copy(Info info) {
  return boolean(info, device().copy(queueArg(info[0]), tensor(info[1]), sizeArg(info[2], "fromByte"), tensor(info[3]),
                                     sizeArg(info[4], "toByte"), sizeArg(info[5], "bytes")));
}

Napi::Value DeviceObject::done(Info info) {
  Device& to = device();
  const int queue = queueArg(info[0]);
  const int token = addPending(info.Env(), Napi::Value());
  const Napi::Value promise = pending_[token].deferred->Promise();
  try {
    if (!to.done(queue, token)) throw Error("INTERNAL", "the command ring is full: await queue.room()");
  } catch (...) {
    dropPending(token);
    throw;
  }
  return promise;
}

Napi::Value DeviceObject::room(Info info) {
  Device& to = device();
  const int token = addPending(info.Env(), Napi::Value());
  const Napi::Promise promise = pending_[token].deferred->Promise();
  if (to.room(token)) {
    pending_[token].deferred->Resolve(info.Env().Undefined());
    dropPending(token);
  }
  return promise;
}

Napi::Value DeviceObject::freeSlots(Info info) { return number(info, device().freeSlots()); }

Napi::Value DeviceObject::beginRecord(Info info) {
  device().beginRecord();
  return info.Env().Undefined();
}

Napi::Value DeviceObject::endRecord(Info info) { return number(info, graphs_.add(device().endRecord())); }

Napi::Value DeviceObject::replay(Info info) {
  return boolean(info, device().replay(queueArg(info[0]), graphs_.at(static_cast<int>(integerArg(info[1], "graph")))));
}

Napi::Value DeviceObject::releaseGraph(Info info) {
  graphs_.remove(static_cast<int>(integerArg(info[0], "graph")));
  return info.Env().Undefined();
}

Napi::Value DeviceObject::joinNccl(Info info) {
  if (!device().onGpu()) throw Error("DEVICE_UNAVAILABLE", "NCCL joins GPUs, and this device is the processor");
  // The device may be closed, and the object gone, before the others have come.
  const auto self = std::make_shared<Napi::ObjectReference>(Napi::Persistent(info.This().As<Napi::Object>()));
  return joinRanks(info.Env(), info[0], gpu_, [self](std::shared_ptr<Communicator> communicator) {
    DeviceObject::Unwrap(self->Value())->device().useCommunicator(std::move(communicator));
  });
}

Napi::Value DeviceObject::close(Info info) {
  if (closePromise_.IsEmpty()) {
    closing_ = true;
    const int token = addPending(info.Env(), Napi::Value());
    const Napi::Promise promise = pending_[token].deferred->Promise();
    closePromise_ = Napi::Persistent(promise.As<Napi::Object>());
    closeToken_ = token;
    device_->finish(token);
  }
  return closePromise_.Value();
}

// ---- openDevice ---------------------------------------------------------------------------------------------------------

namespace {

Isa isaOption(const Napi::Value& value) {
  if (value.IsUndefined() || value.IsNull()) return bestIsa();
  const std::string name = stringArg(value, "isa");
  for (Isa isa : {Isa::plain, Isa::avx2, Isa::avx512}) {
    if (name != nameOf(isa)) continue;
    if (!supports(isa)) throw Error("DEVICE_UNAVAILABLE", "isa \"" + name + "\" is not supported by this processor (best: " + nameOf(bestIsa()) + ")");
    return isa;
  }
  throw Error("DEVICE_UNAVAILABLE", "isa \"" + name + "\" is none of plain, avx2, avx512");
}

int gpuOption(const Napi::Value& value) {
  const int64_t ordinal = value.IsUndefined() || value.IsNull() ? 0 : integerArg(value, "ordinal");
  const GpuList gpus = listGpus();
  const auto there = [&](const Gpu& gpu) { return gpu.ordinal == ordinal; };
  if (std::none_of(gpus.devices.begin(), gpus.devices.end(), there))
    throw Error("DEVICE_UNAVAILABLE", "device \"cuda:" + std::to_string(ordinal) + "\": " +
                                          (gpus.reason.empty() ? "there are " + std::to_string(gpus.devices.size()) + " GPUs" : gpus.reason));
  return static_cast<int>(ordinal);
}

Napi::Value gpus(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const GpuList list = listGpus();
    Napi::Array devices = Napi::Array::New(env, list.devices.size());
    uint32_t i = 0;
    for (const Gpu& gpu : list.devices) {
      Napi::Object object = Napi::Object::New(env);
      object.Set("ordinal", gpu.ordinal);
      object.Set("name", gpu.name);
      object.Set("capability", gpu.capability);
      object.Set("multiprocessors", gpu.multiprocessors);
      object.Set("memoryBytes", static_cast<double>(gpu.memoryBytes));
      object.Set("freeBytes", static_cast<double>(gpu.freeBytes));
      devices[i++] = object;
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("devices", devices);
    result.Set("reason", list.reason.empty() ? env.Null() : Napi::Value(Napi::String::New(env, list.reason)));
    return result;
  });
}

Napi::Value openDevice(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    require(info[0].IsObject(), "openDevice wants an object of options");
    const Napi::Object given = info[0].As<Napi::Object>();
    const std::string kind = stringArg(given.Get("kind"), "kind");
    DeviceOptions options;
    if (kind == "cuda") options.gpu = gpuOption(given.Get("ordinal"));
    else if (kind != "cpu") throw Error("DEVICE_UNAVAILABLE", "device \"" + kind + "\" is neither cpu nor cuda");
    options.fp8Activations = given.Get("fp8Activations").ToBoolean();
    options.batchInvariant = !given.Has("batchInvariant") || given.Get("batchInvariant").ToBoolean();
    options.threads = kind == "cuda" ? 1 : threadsArg(given.Get("threads"));
    options.isa = isaOption(given.Get("isa"));
    options.poison = given.Get("poison").ToBoolean();
    options.sync = given.Get("sync").ToBoolean();
    if (given.Get("trapOn").IsString()) options.trapOn = stringArg(given.Get("trapOn"), "trapOn");
    if (given.Get("faultOn").IsString()) options.faultOn = stringArg(given.Get("faultOn"), "faultOn");
    return addonOf(env).deviceClass.New({Napi::External<DeviceOptions>::New(env, &options)});
  });
}

}  // namespace

void RegisterDevice(Napi::Env env, Napi::Object exports) {
  addonOf(env).deviceClass = Napi::Persistent(DeviceObject::define(env));
  exports.Set("gpus", Napi::Function::New(env, gpus, "gpus"));
  exports.Set("openDevice", Napi::Function::New(env, openDevice, "openDevice"));
}

}  // namespace longcat
