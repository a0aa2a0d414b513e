// NativeCommunicator (ts/runtime/binding.ts): joining other ranks' GPUs by NCCL. What may wait for other ranks has a thread of its own: neither
// JavaScript's, which answers heartbeats meanwhile, nor one of libuv's, of which few do all reading of files.
#include "bindings/communicator.h"

#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace longcat {
namespace {

/// What runs on a thread of its own, and the promise that it settles.
struct Task {
  std::function<void()> work;
  std::function<Napi::Value(Napi::Env)> result;  // on JavaScript's thread, once `work` is done
  Napi::Promise::Deferred deferred;
  std::optional<Error> failure;
};
using TaskPointer = std::shared_ptr<Task>;

/// On JavaScript's thread, to which `result` and what it holds belong; the task's own thread may be the last that has the rest.
void letGo(napi_env, void* context, void*) {
  auto* held = static_cast<TaskPointer*>(context);
  (*held)->result = nullptr;
  delete held;
}

void settle(napi_env raw, napi_value, void* context, void*) {
  if (!raw) return;  // the environment ends
  const Napi::Env env(raw);
  const Napi::HandleScope scope(env);
  const Task& task = **static_cast<TaskPointer*>(context);
  try {
    if (task.failure) throw *task.failure;
    task.deferred.Resolve(task.result(env));
  } catch (const Napi::Error& error) {
    task.deferred.Reject(error.Value());
  } catch (const std::exception& error) {
    task.deferred.Reject(toJsError(env, error).Value());
  }
}

Napi::Value onThread(Napi::Env env, std::function<void()> work, std::function<Napi::Value(Napi::Env)> result) {
  auto task = std::make_shared<Task>(Task{std::move(work), std::move(result), Napi::Promise::Deferred::New(env), {}});
  auto* held = new TaskPointer(task);  // until Node has let go of the function
  napi_threadsafe_function back = nullptr;
  const napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "longcat"), 0, 1, held, letGo, held, settle, &back);
  if (status != napi_ok) {
    delete held;
    throw Error("INTERNAL", "Node made no thread-safe function");
  }
  std::thread([task, back] {
    try {
      task->work();
    } catch (const Error& error) {
      task->failure = error;
    } catch (const std::exception& error) {
      task->failure = Error("INTERNAL", error.what());
    }
    napi_call_threadsafe_function(back, nullptr, napi_tsfn_nonblocking);
    napi_release_threadsafe_function(back, napi_tsfn_release);
  }).detach();
  return task->deferred.Promise();
}

std::string pathArg(Napi::Value value) { return value.IsUndefined() || value.IsNull() ? "" : stringArg(value, "library"); }

NcclId idArg(Napi::Value value) {
  NcclId id{};
  const Bytes bytes = bytesArg(value, "id");
  require(bytes.size == sizeof id.bytes, "an id of NCCL's has " + std::to_string(sizeof id.bytes) + " bytes, not " + std::to_string(bytes.size));
  std::memcpy(id.bytes, bytes.data, sizeof id.bytes);
  return id;
}

Napi::Value communicatorObject(Napi::Env env, const std::shared_ptr<Communicator>& communicator) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("failure", Napi::Function::New(env, [communicator](const Napi::CallbackInfo& info) -> Napi::Value {
    const std::string words = communicator->failure();
    return words.empty() ? info.Env().Null() : Napi::Value(Napi::String::New(info.Env(), words));
  }));
  object.Set("measure", Napi::Function::New(env, [communicator](const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const int64_t bytes = integerArg(info[0], "bytes");
      require(bytes >= 0, "bytes is at least 0");
      const auto microseconds = std::make_shared<double>();
      return onThread(info.Env(), [=] { *microseconds = communicator->measure(static_cast<size_t>(bytes)); },
                      [=](Napi::Env to) { return Napi::Number::New(to, *microseconds); });
    });
  }));
  object.Set("abort", Napi::Function::New(env, [communicator](const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return onThread(info.Env(), [communicator] { communicator->abort(); }, [](Napi::Env to) { return to.Undefined(); });
    });
  }));
  return object;
}

Napi::Value ncclUniqueId(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const NcclId id = Nccl::open(pathArg(info[0])).uniqueId();
    return Napi::Buffer<char>::Copy(info.Env(), id.bytes, sizeof id.bytes);
  });
}

}  // namespace

Napi::Value joinRanks(Napi::Env env, Napi::Value options, int gpu, std::function<void(std::shared_ptr<Communicator>)> joined) {
  require(options.IsObject(), "joinNccl wants an object of options");
  const Napi::Object given = options.As<Napi::Object>();
  const int64_t ranks = integerArg(given.Get("ranks"), "ranks"), rank = integerArg(given.Get("rank"), "rank");
  require(ranks >= 1 && ranks <= INT32_MAX && rank >= 0 && rank < ranks, "rank " + std::to_string(rank) + " of " + std::to_string(ranks));
  const NcclId id = idArg(given.Get("id"));
  const Nccl& nccl = Nccl::open(pathArg(given.Get("library")));
  const auto communicator = std::make_shared<std::shared_ptr<Communicator>>();
  return onThread(
      env, [=, &nccl] { *communicator = joinNccl(nccl, gpu, static_cast<int>(rank), static_cast<int>(ranks), id); },
      [=](Napi::Env to) {
        try {
          joined(*communicator);
        } catch (...) {
          (*communicator)->abort();  // nothing was captured with it
          throw;
        }
        return communicatorObject(to, *communicator);
      });
}

void RegisterCommunicator(Napi::Env env, Napi::Object exports) {
  exports.Set("ncclUniqueId", Napi::Function::New(env, ncclUniqueId, "ncclUniqueId"));
}

}  // namespace longcat
