// A reader of the little JSON that a safetensors header may hold: objects, arrays of integers, strings. Nesting is given by
// the caller's code, never by the text, so no input can exhaust the stack. Every failure throws with the byte where it is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace longcat {

class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  /// Skips white space; whether the next character is `c`, which is then consumed.
  bool take(char c);
  /// The same, but it must be there. `what` says what was being read.
  void expect(char c, const char* what);
  /// A string with its escapes resolved; valid UTF-8 without lone surrogates.
  std::string string(const char* what);
  /// Digits only, without leading zeros, below 2^53.
  int64_t integer(const char* what);
  /// Only white space is left.
  bool atEnd();
  [[noreturn]] void fail(const std::string& problem) const;

  /// Named in messages from here on; empty: none.
  std::string tensor;

 private:
  void skipSpace();
  unsigned hex4();
  void escape(std::string& out);
  void utf8Sequence(std::string& out);

  std::string_view text_;
  const std::string& file_;
  size_t at_ = 0;
};

/// Calls element() for each element of `[…]` or member(name) for each of `{"name": …}`.
template <class F>
void readArray(HeaderReader& in, const char* what, F&& element) {
  in.expect('[', what);
  if (in.take(']')) return;
  do element(); while (in.take(','));
  in.expect(']', what);
}

template <class F>
void readObject(HeaderReader& in, const char* what, F&& member) {
  in.expect('{', what);
  if (in.take('}')) return;
  do {
    std::string name = in.string(what);
    in.expect(':', what);
    member(std::move(name));
  } while (in.take(','));
  in.expect('}', what);
}

}  // namespace longcat
