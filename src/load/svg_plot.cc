// SPDX-License-Identifier: Apache-2.0
#include "load/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace puna::load {
namespace {

constexpr double kWidth = 560;
constexpr double kHeight = 300;
constexpr double kLeft = 58;
constexpr double kRight = 14;
constexpr double kTop = 44;
constexpr double kBottom = 46;
constexpr size_t kMaxDots = 3000;  // of one series; more are thinned out

struct Axis {
  double low = 0;
  double high = 1;
  double from = 0;  // pixels
  double to = 1;
  bool log = false;

  double at(double value) const {
    const double part =
        log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + part * (to - from);
  }
  std::vector<double> ticks() const {
    if (!log) return round_ticks(low, high, 6);
    std::vector<double> ticks;
    const bool few = high / low > 2000;
    for (double ten = std::pow(10, std::floor(std::log10(low))); ten <= high; ten *= 10) {
      for (const double step : {1.0, 2.0, 5.0}) {
        if (few && step != 1) continue;
        if (ten * step >= low && ten * step <= high) ticks.push_back(ten * step);
      }
    }
    return ticks;
  }
};

bool shown(const Plot& plot, double x) { return !plot.log_x || x > 0; }

// The axes that hold all points, up to the next round number.
std::pair<Axis, Axis> axes_of(const Plot& plot) {
  Axis x{.low = plot.log_x ? 1e300 : 0,
         .high = 0,
         .from = kLeft,
         .to = kWidth - kRight,
         .log = plot.log_x};
  Axis y{.low = 0, .high = 0, .from = kHeight - kBottom, .to = kTop};
  for (const Series& series : plot.series) {
    for (const auto& [at_x, at_y] : series.points) {
      if (!shown(plot, at_x)) continue;
      if (plot.log_x) x.low = std::min(x.low, at_x);
      x.high = std::max(x.high, at_x);
      y.high = std::max(y.high, at_y);
    }
  }
  if (plot.log_x) {
    if (x.high <= 0) x.low = x.high = 1;
    x.low *= 0.9;
    x.high *= 1.1;
  } else {
    if (x.high <= x.low) x.high = x.low + 1;
  }
  if (y.high <= 0) y.high = 1;
  y.high *= 1.02;
  return {x, y};
}

void append_axes(std::string& out, const Plot& plot, const Axis& x, const Axis& y) {
  auto end = std::back_inserter(out);
  for (const double tick : y.ticks()) {
    fmt::format_to(end,
                   R"(<path class="grid" d="M{0:.1f} {1:.1f}H{2:.1f}"/>)"
                   R"(<text x="{3:.1f}" y="{4:.1f}" text-anchor="end">{5:g}</text>)",
                   x.from, y.at(tick), x.to, x.from - 6, y.at(tick) + 4, tick);
  }
  for (const double tick : x.ticks()) {
    fmt::format_to(end,
                   R"(<path class="grid" d="M{0:.1f} {1:.1f}V{2:.1f}"/>)"
                   R"(<text x="{0:.1f}" y="{3:.1f}" text-anchor="middle">{4:g}</text>)",
                   x.at(tick), y.to, y.from, y.from + 16, tick);
  }
  fmt::format_to(end,
                 R"(<text class="title" x="{:.0f}" y="18">{}</text>)"
                 R"(<text x="{:.0f}" y="{:.0f}" text-anchor="middle">{}</text>)",
                 kLeft, html_escape(plot.title), (x.from + x.to) / 2, kHeight - 8,
                 html_escape(plot.x_label));
  fmt::format_to(end,
                 R"svg(<text transform="translate(13 {:.0f}) rotate(-90)" )svg"
                 R"svg(text-anchor="middle">{}</text>)svg",
                 (y.from + y.to) / 2, html_escape(plot.y_label));
}

void append_dots(std::string& out, const Plot& plot, const Series& series, size_t number,
                 const Axis& x, const Axis& y) {
  const size_t stride = series.points.size() / kMaxDots + 1;
  fmt::format_to(std::back_inserter(out), R"(<path class="dots s{}" d=")", number);
  for (size_t i = 0; i < series.points.size(); i += stride) {
    const auto& [at_x, at_y] = series.points[i];
    if (!shown(plot, at_x)) continue;
    fmt::format_to(std::back_inserter(out), "M{:.1f} {:.1f}h0", x.at(at_x), y.at(at_y));
  }
  out += R"("/>)";
}

void append_line(std::string& out, const Plot& plot, const Series& series, size_t number,
                 const Axis& x, const Axis& y) {
  fmt::format_to(std::back_inserter(out), R"(<path class="line s{}" d=")", number);
  char command = 'M';
  for (const auto& [at_x, at_y] : series.points) {
    if (!shown(plot, at_x)) continue;
    fmt::format_to(std::back_inserter(out), "{}{:.1f} {:.1f}", command, x.at(at_x), y.at(at_y));
    command = 'L';
  }
  out += R"("/>)";
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  if (!(rough > 0)) return {low};
  const double ten = std::pow(10, std::floor(std::log10(rough)));
  double step = ten * 10;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (ten * factor >= rough) {
      step = ten * factor;
      break;
    }
  }
  std::vector<double> ticks;
  for (double n = std::ceil(low / step); n * step <= high; ++n) ticks.push_back(n * step);
  return ticks;
}

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

std::string svg_plot(const Plot& plot) {
  const auto [x, y] = axes_of(plot);
  std::string out = fmt::format(R"(<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">)",
                                kWidth, kHeight, html_escape(plot.title));
  append_axes(out, plot, x, y);
  double legend_x = kLeft;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const Series& series = plot.series[i];
    (series.dots ? append_dots : append_line)(out, plot, series, i, x, y);
    if (plot.series.size() < 2 && !series.dots) continue;
    fmt::format_to(std::back_inserter(out),
                   R"(<path class="key s{}" d="M{:.0f} 32h12"/><text x="{:.0f}" y="36">{}</text>)",
                   i, legend_x, legend_x + 17, html_escape(series.name));
    legend_x += 38 + 6.6 * static_cast<double>(series.name.size());
  }
  return out + "</svg>\n";
}

}  // namespace puna::load
