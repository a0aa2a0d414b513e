// The reader of safetensors headers; see header_reader.h.
#include "io/header_reader.h"

#include "io/safetensors.h"
#include "runtime/error.h"

namespace longcat {

namespace {

void appendUtf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 63));
    out += static_cast<char>(0x80 | (code & 63));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 63));
    out += static_cast<char>(0x80 | (code >> 6 & 63));
    out += static_cast<char>(0x80 | (code & 63));
  }
}

}  // namespace

void HeaderReader::fail(const std::string& problem) const {
  std::string message = forMessage(file_, 120) + ": ";
  if (!tensor.empty()) message += "tensor \"" + forMessage(tensor, 80) + "\": ";
  throw Error("CHECKPOINT_INVALID", message + problem);
}

void HeaderReader::skipSpace() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
}

bool HeaderReader::take(char c) {
  skipSpace();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void HeaderReader::expect(char c, const char* what) {
  if (take(c)) return;
  const std::string found = at_ < text_.size() ? "found \"" + forMessage(text_.substr(at_, 1)) + "\"" : "found the header's end";
  fail(std::string("the header is not what the format allows: ") + what + ": '" + c + "' expected at byte " +
       std::to_string(at_) + ", " + found);
}

bool HeaderReader::atEnd() {
  skipSpace();
  return at_ == text_.size();
}

int64_t HeaderReader::integer(const char* what) {
  constexpr int64_t kLimit = int64_t{1} << 53;
  skipSpace();
  const size_t start = at_;
  int64_t value = 0;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    value = value * 10 + (text_[at_] - '0');
    if (value >= kLimit) fail(std::string(what) + ": a number of 2^53 or more");
    ++at_;
  }
  const bool bad = at_ == start || (text_[start] == '0' && at_ - start > 1) ||
                   (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E'));
  if (bad) fail(std::string(what) + ": \"" + forMessage(text_.substr(start, 12)) + "\" does not begin with an integer from 0 to 2^53 - 1");
  return value;
}

unsigned HeaderReader::hex4() {
  unsigned value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (c >= '0' && c <= '9') value = value * 16 + static_cast<unsigned>(c - '0');
    else if (c >= 'a' && c <= 'f') value = value * 16 + static_cast<unsigned>(c - 'a' + 10);
    else if (c >= 'A' && c <= 'F') value = value * 16 + static_cast<unsigned>(c - 'A' + 10);
    else fail("a \\u escape at byte " + std::to_string(at_) + " of the header without four hexadecimal digits");
  }
  return value;
}

void HeaderReader::escape(std::string& out) {
  const char c = at_ < text_.size() ? text_[at_++] : '\0';
  switch (c) {
    case '"': case '\\': case '/': out += c; return;
    case 'b': out += '\b'; return;
    case 'f': out += '\f'; return;
    case 'n': out += '\n'; return;
    case 'r': out += '\r'; return;
    case 't': out += '\t'; return;
    case 'u': break;
    default: fail("an unknown escape at byte " + std::to_string(at_) + " of the header");
  }
  uint32_t code = hex4();
  if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
    at_ += 2;
    const uint32_t low = hex4();
    if (low >= 0xDC00 && low < 0xE000) code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  if (code >= 0xD800 && code < 0xE000) fail("half a surrogate pair before byte " + std::to_string(at_) + " of the header");
  appendUtf8(out, code);
}

/// One non-ASCII character: shortest form, no surrogates, at most U+10FFFF.
void HeaderReader::utf8Sequence(std::string& out) {
  const auto byte = [&](size_t i) { return i < text_.size() ? static_cast<unsigned char>(text_[i]) : 0u; };
  const unsigned first = byte(at_);
  const int more = first >= 0xC2 && first < 0xE0 ? 1 : first >= 0xE0 && first < 0xF0 ? 2 : first >= 0xF0 && first < 0xF5 ? 3 : 0;
  uint32_t code = first & (0x3Fu >> more);
  bool good = more > 0;
  for (int i = 1; i <= more && good; ++i) {
    const unsigned next = byte(at_ + static_cast<size_t>(i));
    good = (next & 0xC0) == 0x80;
    code = code << 6 | (next & 63);
  }
  if (good) good = !(more == 2 && code < 0x800) && !(more == 3 && (code < 0x10000 || code > 0x10FFFF)) && !(code >= 0xD800 && code < 0xE000);
  if (!good) fail("the header is not UTF-8 at byte " + std::to_string(at_));
  out.append(text_.substr(at_, static_cast<size_t>(more) + 1));
  at_ += static_cast<size_t>(more) + 1;
}

std::string HeaderReader::string(const char* what) {
  expect('"', what);
  std::string out;
  for (;;) {
    if (at_ >= text_.size()) fail(std::string("the header ends within a string: ") + what);
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    if (c == '"') { ++at_; return out; }
    if (c == '\\') { ++at_; escape(out); }
    else if (c < 0x20) fail("a control character within a string at byte " + std::to_string(at_) + " of the header");
    else if (c < 0x80) { out += text_[at_++]; }
    else utf8Sequence(out);
  }
}

}  // namespace longcat
