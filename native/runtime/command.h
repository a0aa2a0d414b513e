// What goes through a device's ring, and what a graph keeps of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/op.h"

namespace longcat {

constexpr int kMaxQueues = 8, kMaxEvents = 256;

enum class CommandKind : uint8_t {
  op,        // run a body
  fill,      // every byte of `target` = byteValue
  copy,      // `bytes` from `source` + sourceByte to `target` + targetByte
  write,     // `bytes` of the payload to `target` + targetByte
  read,      // `bytes` from `source` + sourceByte to `into`, then settle `token`
  done,      // settle `token`
  replay,    // run a graph
  prepare,   // make `graph` fast to replay
  upload,    // all of `source`, which the host has, to `target`
  signal,    // mark this place of the queue as event `token`
  wait,      // the queue goes on after event `token`
  scratch,   // from here on the threads use this scratch
  convert,   // `source` (with its scales) to `target`, runtime/convert.h
};

/// Why something failed, and up to which commands the failure reaches: see Device, "Faults".
struct Fault {
  std::string code, message;
  uint64_t wave = 0;
};

/// Bytes on their way to JavaScript.
using ReadBuffer = std::vector<std::byte>;

struct Graph;

/// A slot of the ring. Slots are used again and again; their vectors keep what they have allocated.
struct Command {
  CommandKind kind = CommandKind::done;
  int queue = 0;
  uint64_t wave = 0;  // see Device, "Faults"
  // op
  const OpSpec* spec = nullptr;
  std::byte* params = nullptr;                            // kMaxParamBytes
  std::vector<std::shared_ptr<const void>> retained;      // buffers and stacks that the parameters point into
  std::vector<Tensor> poisoned;                           // debug: outputs to fill with 0xFF first
  // fill, copy, write, read, convert
  Tensor source, target, scale;
  size_t sourceByte = 0, targetByte = 0, bytes = 0;
  int byteValue = 0;
  const std::byte* payload = nullptr;
  uint64_t payloadEnd = 0;                                // the payload ring is free up to here afterwards; 0: not in the ring
  std::shared_ptr<Buffer> ownPayload;
  // read, done; signal, wait
  int token = -1;
  ReadBuffer* into = nullptr;
  // replay, prepare, scratch
  std::shared_ptr<const Graph> graph;
  std::shared_ptr<Buffer> scratch;

  /// Lets go of everything that it retains.
  void release() {
    retained.clear();
    poisoned.clear();
    for (Tensor* tensor : {&source, &target, &scale}) {
      tensor->buffer.reset();
      tensor->parts.reset();
    }
    ownPayload.reset();
    graph.reset();
    scratch.reset();
  }
};

/// Recorded commands (op, fill, copy, signal, wait) in order; their parameters lie in `params`.
struct Graph {
  int number = 0;
  std::vector<Command> commands;
  std::vector<std::shared_ptr<Buffer>> params;
  /// What a backend has made of it; belongs to the owner thread.
  mutable std::shared_ptr<void> prepared;
};

}  // namespace longcat
