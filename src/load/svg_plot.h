// SPDX-License-Identifier: Apache-2.0
// A small plot as inline SVG: axes with round numbers, a legend, dots or lines. Colours come from
// the page's classes .s0 to .s5.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace puna::load {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
  bool dots = false;
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;  // what is not above 0 is left out
  std::vector<Series> series;
};

std::string svg_plot(const Plot& plot);

// Of text between tags and in attributes.
std::string html_escape(std::string_view text);

// Round numbers from `low` to `high`, about `count` of them.
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace puna::load
