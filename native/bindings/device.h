// NativeDevice (ts/runtime/binding.ts): a Device of the runtime, its tensors and graphs by number, its promises.
#pragma once

#include <memory>
#include <vector>

#include "bindings/addon.h"
#include "runtime/device.h"
#include "runtime/id_table.h"

namespace longcat {

class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function define(Napi::Env env);
  /// Made by openDevice alone: info[0] is an External of DeviceOptions.
  explicit DeviceObject(const Napi::CallbackInfo& info);
  ~DeviceObject() override;

  int addTensor(Tensor tensor) { return tensors_.add(std::move(tensor)); }

 private:
  using Info = const Napi::CallbackInfo&;
  template <Napi::Value (DeviceObject::*method)(Info)>
  Napi::Value guard(Info info) {
    return guarded(info.Env(), [&] { return (this->*method)(info); });
  }

  Napi::Value kind(Info info);
  Napi::Value threads(Info info);
  Napi::Value isa(Info info);
  Napi::Value allocate(Info info);
  Napi::Value view(Info info);
  Napi::Value fromFile(Info info);
  Napi::Value stack(Info info);
  Napi::Value convert(Info info);
  Napi::Value window(Info info);
  Napi::Value joinWindows(Info info);
  Napi::Value hostWords(Info info);
  Napi::Value getWord(Info info);
  Napi::Value setWord(Info info);
  Napi::Value release(Info info);
  Napi::Value allocatedBytes(Info info);
  Napi::Value eagerGraphs(Info info);
  Napi::Value freeBytes(Info info);
  Napi::Value reserve(Info info);
  Napi::Value signal(Info info);
  Napi::Value wait(Info info);
  Napi::Value enqueue(Info info);
  Napi::Value write(Info info);
  Napi::Value read(Info info);
  Napi::Value fill(Info info);
  Napi::Value copy(Info info);
  Napi::Value done(Info info);
  Napi::Value room(Info info);
  Napi::Value freeSlots(Info info);
  Napi::Value beginRecord(Info info);
  Napi::Value endRecord(Info info);
  Napi::Value replay(Info info);
  Napi::Value releaseGraph(Info info);
  Napi::Value joinNccl(Info info);
  Napi::Value close(Info info);

  /// A promise that a completion will settle; `into` is where a read's bytes go.
  struct Pending {
    std::unique_ptr<Napi::Promise::Deferred> deferred;
    Napi::ObjectReference into;
  };

  Device& device();
  Tensor& tensor(Napi::Value id) { return tensors_.at(static_cast<int>(integerArg(id, "tensor"))); }
  int addPending(Napi::Env env, Napi::Value into);
  void dropPending(int token);
  void settleAll(Napi::Env env);
  void settle(Napi::Env env, const Completion& completion);
  void closed();
  void shutDown();

  // The way from the owner thread to this one. It outlives this object until Node has let go of it.
  struct Channel {
    DeviceObject* object;
  };
  static void onNotify(napi_env env, napi_value, void* context, void*);
  static void onEnvironmentEnd(void* object);

  std::unique_ptr<Device> device_;
  IdTable<Tensor> tensors_{"tensor"};
  IdTable<std::shared_ptr<const Graph>> graphs_{"graph"};
  std::vector<Pending> pending_;
  std::vector<int> freePending_;
  int numPending_ = 0;
  napi_threadsafe_function notifier_ = nullptr;
  Channel* channel_ = nullptr;
  bool hooked_ = false;
  bool closing_ = false;
  int closeToken_ = -1;
  Napi::ObjectReference closePromise_;
  int threads_ = 1;
  Isa isa_ = Isa::plain;
  int gpu_ = -1;
};

}  // namespace longcat
