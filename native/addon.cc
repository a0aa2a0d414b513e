// The module's entry, once for each JavaScript environment (main thread, worker threads).
#include <napi.h>

#include "bindings/addon.h"

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  longcat::registerAddon(env, exports);
  return exports;
}

NODE_API_MODULE(longcat, initialize)
