// Activations: what operations hand to each other. float32 on the CPU; on a GPU float32 or bfloat16, as the `activation` of an
// operation's parameters says (docs/numerics.md, 1).
#pragma once

#include "runtime/dtype.h"

namespace longcat {

/// Where activations are read. Bodies of the CPU use it as the float32 numbers that it is there.
struct ConstActivations {
  const void* data = nullptr;
  operator const float*() const { return static_cast<const float*>(data); }
  template <class T>
  const T* as() const { return static_cast<const T*>(data); }
};

/// Where activations are written.
struct Activations {
  void* data = nullptr;
  operator float*() const { return static_cast<float*>(data); }
  operator ConstActivations() const { return {data}; }
  template <class T>
  T* as() const { return static_cast<T*>(data); }
};

}  // namespace longcat
