// cross_entropy: the loss of each row's target over the vocabulary, and its gradient.
//   loss = log Σ exp(logits) − logits[target];  dlogits = scale · (softmax(logits) − onehot(target))
// Rows whose target is −1 are not counted: loss and gradient are 0. `scale` is what a row counts for in the loss that is differentiated:
// 1 / targets of all batches of a step, say.
#pragma once
#include "ops/weight.h"
namespace longcat {

// tensors: logits, targets, scale, loss, d_logits?, rows
struct CrossEntropyParams {
  const float* logits;      // [R, vocabulary]
  const int32_t* targets;   // [R]; -1: ignored
  const float* scale;       // [1]
  float* loss;              // [R], not scaled
  float* dLogits;           // [R, vocabulary] or null: the loss alone; may be `logits`
  const int32_t* rows;      // [1]
  int64_t capacity, vocabulary;
};

}  // namespace longcat
