// Errors that cross the border: a code of the public API (LongcatError.code) and a sentence for the user.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace longcat {

/// `code` is one of the codes of docs/troubleshooting.md, e.g. "CHECKPOINT_INVALID", "OUT_OF_MEMORY", "INTERNAL".
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const { return code_; }

 private:
  std::string code_;
};

/// Throws Error("INTERNAL", message) unless `ok`: a caller inside the project broke an operation's contract.
inline void require(bool ok, const std::string& message) {
  if (!ok) throw Error("INTERNAL", message);
}

}  // namespace longcat
