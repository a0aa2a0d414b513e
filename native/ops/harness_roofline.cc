// The roofline of a list of benchmarks as SVG: one self-contained picture (harness_bench.h).
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "ops/harness_bench.h"

namespace longcat {
namespace {

constexpr double kWidth = 1000, kHeight = 640, kLeft = 80, kRight = 190, kTop = 50, kBottom = 60;
const char* const kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22", "#393b79", "#637939", "#843c39"};

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char* format, ...) {
  char buffer[512];
  va_list list;
  va_start(list, format);
  std::vsnprintf(buffer, sizeof buffer, format, list);
  va_end(list);
  return buffer;
}

std::string escaped(const std::string& s) {
  std::string result;
  for (char c : s) result += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  return result;
}

/// A logarithmic plane: x in operations per byte, y in operations per second.
struct Plane {
  double x0, x1, y0, y1;  // decades
  double x(double value) const { return kLeft + (std::log10(value) - x0) / (x1 - x0) * (kWidth - kLeft - kRight); }
  double y(double value) const { return kHeight - kBottom - (std::log10(value) - y0) / (y1 - y0) * (kHeight - kTop - kBottom); }
};

Plane planeOf(const BenchCeilings& ceilings, const std::vector<BenchRow>& rows) {
  const double most = std::max(ceilings.mmaFlops, ceilings.fmaFlops);
  Plane p{-1, 3, std::floor(std::log10(most)) - 4, std::ceil(std::log10(most * 1.05))};
  for (const BenchRow& r : rows) {
    if (r.what.flops <= 0 || r.what.bytes <= 0) continue;
    const double x = std::log10(r.what.flops / r.what.bytes), y = std::log10(r.what.flops / r.microseconds * 1e6);
    p.x0 = std::min(p.x0, std::floor(x)), p.x1 = std::max(p.x1, std::ceil(x));
    p.y0 = std::min(p.y0, std::floor(y));
  }
  return p;
}

std::string axes(const Plane& p) {
  std::string s;
  for (double d = p.x0; d <= p.x1; ++d) {
    const double x = p.x(std::pow(10, d));
    s += text("<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#ddd'/><text x='%.1f' y='%.1f' text-anchor='middle'>%g</text>\n", x, kTop, x,
              kHeight - kBottom, x, kHeight - kBottom + 18, std::pow(10, d));
  }
  for (double d = p.y0; d <= p.y1; ++d) {
    const double y = p.y(std::pow(10, d));
    s += text("<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#ddd'/><text x='%.1f' y='%.1f' text-anchor='end'>%g</text>\n", kLeft, y,
              kWidth - kRight, y, kLeft - 6, y + 4, std::pow(10, d - 12));
  }
  return s + text("<text x='%.1f' y='%.1f' text-anchor='middle'>operations per byte</text>\n", (kLeft + kWidth - kRight) / 2, kHeight - 16) +
         text("<text transform='translate(20 %.1f) rotate(-90)' text-anchor='middle'>TFLOP/s</text>\n", (kTop + kHeight - kBottom) / 2);
}

/// The memory's slope up to where it meets `flops`, and the level from there.
std::string roof(const Plane& p, double bytesPerSecond, double flops, const char* name) {
  if (flops <= 0) return "";
  const double knee = std::clamp(flops / bytesPerSecond, std::pow(10, p.x0), std::pow(10, p.x1));
  const double from = std::clamp(std::pow(10, p.y0) / bytesPerSecond, std::pow(10, p.x0), knee);
  return text("<polyline points='%.1f,%.1f %.1f,%.1f %.1f,%.1f' fill='none' stroke='#333' stroke-width='1.5'/>\n", p.x(from), p.y(from * bytesPerSecond), p.x(knee),
              p.y(knee * bytesPerSecond), p.x(std::pow(10, p.x1)), p.y(flops)) +
         text("<text x='%.1f' y='%.1f' text-anchor='end'>%s: %.4g TFLOP/s</text>\n", p.x(std::pow(10, p.x1)) - 4, p.y(flops) - 5, name, flops / 1e12);
}

std::string points(const Plane& p, const std::vector<BenchRow>& rows) {
  std::string s, legend;
  std::vector<std::string> ops;
  int without = 0;
  for (const BenchRow& r : rows) {
    if (r.what.flops <= 0 || r.what.bytes <= 0) {
      ++without;
      continue;
    }
    auto at = std::find(ops.begin(), ops.end(), r.op);
    if (at == ops.end()) at = ops.insert(ops.end(), r.op);
    const char* colour = kColours[static_cast<size_t>(at - ops.begin()) % std::size(kColours)];
    const double flops = r.what.flops / r.microseconds * 1e6;
    s += text("<circle cx='%.1f' cy='%.1f' r='4' fill='%s' fill-opacity='0.75'><title>", p.x(r.what.flops / r.what.bytes), p.y(flops), colour) +
         escaped(r.op + ", " + r.what.model->name + " " + r.what.shape + ", " + std::to_string(r.what.tokens) + " tokens, " + r.activations + " x " +
                 (r.what.weights.empty() ? "-" : r.what.weights)) +
         text(": %.2f us, %.3g TFLOP/s, %.1f %% of %s</title></circle>\n", r.microseconds, flops / 1e12, 100 * r.share, r.bound);
  }
  for (size_t i = 0; i < ops.size(); ++i) {
    const double y = kTop + 14 + 20 * static_cast<double>(i);
    legend += text("<circle cx='%.1f' cy='%.1f' r='5' fill='%s'/><text x='%.1f' y='%.1f'>", kWidth - kRight + 20, y - 4, kColours[i % std::size(kColours)],
                   kWidth - kRight + 32, y) + escaped(ops[i]) + "</text>\n";
  }
  if (without > 0)
    legend += text("<text x='%.1f' y='%.1f' fill='#666'>%d rows without flops</text>\n", kWidth - kRight + 12, kTop + 24 + 20 * static_cast<double>(ops.size()), without);
  return s + legend;
}

}  // namespace

std::string rooflineSvg(const std::string& title, const BenchCeilings& ceilings, const std::vector<BenchRow>& rows) {
  const Plane p = planeOf(ceilings, rows);
  std::string s = text("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %g %g' font-family='sans-serif' font-size='12'>\n", kWidth, kHeight);
  s += text("<rect width='%g' height='%g' fill='white'/>\n<text x='%g' y='28' font-size='16'>", kWidth, kHeight, kLeft) + escaped(title) +
       text(": memory %.4g GB/s</text>\n", ceilings.bytesPerSecond / 1e9);
  s += axes(p) + roof(p, ceilings.bytesPerSecond, ceilings.mmaFlops, "bf16 tensor cores") + roof(p, ceilings.bytesPerSecond, ceilings.fmaFlops, "f32 multiply-add");
  return s + points(p, rows) + "</svg>\n";
}

}  // namespace longcat
