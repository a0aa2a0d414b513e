// Finding operations by name, and what the processor at hand may run of them.
#pragma once

#include "ops/op.h"

namespace longcat {

/// The operation of that name, or null.
const OpSpec* findOp(const char* name);

/// The tensor argument that position `i` of a call belongs to: repeats the last one of a spec ending in "...".
const TensorArg& tensorArg(const OpSpec& spec, int i);

/// Whether the operation takes any number of tensors after its last named one.
bool isVariadic(const OpSpec& spec);

/// Whether output `i` shares memory with a tensor that the call reads (a sum written in place).
bool readsInto(const OpSpec& spec, const OpArgs& args, int i);

/// Throws Error("INTERNAL") unless the numbers of tensors and scalars fit and every required tensor is there.
void checkArity(const OpSpec& spec, const OpArgs& args);

}  // namespace longcat
