// What NativeDevice.joinNccl (ts/runtime/binding.ts) is made of.
#pragma once

#include <functional>
#include <memory>

#include "bindings/addon.h"
#include "comm/communicator.h"

namespace longcat {

/// A promise of a NativeCommunicator: rank `options.rank` of `options.ranks` has joined, on that GPU; `joined` gets it first, on JavaScript's thread.
Napi::Value joinRanks(Napi::Env env, Napi::Value options, int gpu, std::function<void(std::shared_ptr<Communicator>)> joined);

}  // namespace longcat
