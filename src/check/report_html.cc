// SPDX-License-Identifier: Apache-2.0
// The report as one page: a headline, verdicts, two plots, then every number and how it was made.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "check/report.h"

namespace puna::check {
namespace {

constexpr std::string_view kStyle = R"(<style>
:root{--ink:#1d2733;--soft:#5d6b7a;--line:#e3e8ee;--card:#fff;--page:#f5f7fa;
--pass:#1f9470;--refuse:#c2344d;--unknown:#8a7a3c;--base:#8fa3b8}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa8b7;--line:#2c3743;--card:#1a222b;
--page:#11171e;--pass:#56c9a2;--refuse:#f07488;--unknown:#cdb955;--base:#5d7186}}
body{margin:0 auto;padding:28px 20px 60px;max-width:1080px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:30px 0 10px}
p,li{color:var(--soft);margin:4px 0 10px;max-width:80ch}b{color:var(--ink)}
.headline{font-size:18px;color:var(--ink)}
.chips{display:flex;flex-wrap:wrap;gap:8px;margin:14px 0}
.chips span{padding:6px 12px;border-radius:16px;background:var(--card);border:2px solid;
color:var(--ink)}
.pass{border-color:var(--pass);fill:var(--pass);stroke:var(--pass)}
.refuse{border-color:var(--refuse);fill:var(--refuse);stroke:var(--refuse)}
.inconclusive{border-color:var(--unknown);fill:var(--unknown);stroke:var(--unknown)}
.base{fill:var(--base)}
svg,table{background:var(--card);border:1px solid var(--line);border-radius:8px}
svg{width:100%;height:auto;margin-bottom:14px}
svg text{fill:var(--soft);font-size:12px;stroke:none}
svg .title{fill:var(--ink);font-weight:600;font-size:14px}
.grid{stroke:var(--line);fill:none}.limit{stroke:var(--refuse);stroke-dasharray:5 4;fill:none}
.whisker{stroke-width:2.5;fill:none}
table{border-collapse:separate;border-spacing:0;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:6px 10px;text-align:right;border-top:1px solid var(--line);vertical-align:top}
tr:first-child th{border-top:0;color:var(--soft);font-weight:500}
td:first-child,th:first-child,td.text{text-align:left}
pre{white-space:pre-wrap;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:10px;margin:4px 0 10px;max-height:16em;overflow:auto}
code{word-break:break-all}
</style>)";

constexpr double kWidth = 760;
constexpr double kLeft = 130;
constexpr double kRight = 30;
constexpr double kTop = 40;
constexpr double kRowHeight = 30;
constexpr double kBottom = 44;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// A horizontal axis in per cent or points.
struct Scale {
  double low;
  double high;
  double at(double value) const {
    const double inside = std::clamp(value, low, high);
    return kLeft + (inside - low) / (high - low) * (kWidth - kLeft - kRight);
  }
};

std::vector<const FamilyCertificate*> answered(const Certificate& certificate) {
  std::vector<const FamilyCertificate*> families;
  for (const FamilyCertificate& family : certificate.families) {
    if (family.n > 0) families.push_back(&family);
  }
  return families;
}

void open_plot(std::string& out, std::string_view title, std::string_view axis, const Scale& scale,
               double step, size_t rows) {
  const double height = kTop + kBottom + kRowHeight * static_cast<double>(rows);
  const auto end = std::back_inserter(out);
  fmt::format_to(end,
                 "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\"><text class=\"title\" x=\"16\" "
                 "y=\"24\">{}</text>\n",
                 kWidth, height, title);
  for (double tick = std::ceil(scale.low / step) * step; tick <= scale.high + 1e-9; tick += step) {
    fmt::format_to(end,
                   "<path class=\"grid\" d=\"M{0:.1f} {1:.1f}V{2:.1f}\"/><text x=\"{0:.1f}\" "
                   "y=\"{3:.1f}\" text-anchor=\"middle\">{4:.0f}</text>\n",
                   scale.at(tick), kTop, height - kBottom, height - kBottom + 16,
                   tick == 0 ? 0.0 : tick);
  }
  fmt::format_to(end, "<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>\n",
                 (kLeft + kWidth - kRight) / 2, height - 8, axis);
}

double round_step(double span) {
  for (const double step : {1.0, 2.0, 5.0, 10.0, 20.0}) {
    if (span / step <= 10) return step;
  }
  return 50;
}

// Loss with its interval per family, and the line that must not be crossed.
std::string loss_plot(const Certificate& certificate) {
  const auto families = answered(certificate);
  const double delta = 100 * certificate.delta;
  double low = -delta;
  double high = 2 * delta;
  for (const FamilyCertificate* family : families) {
    low = std::min(low, 100 * family->interval_low);
    high = std::max(high, 100 * family->interval_high);
  }
  const Scale scale{std::floor(low), std::ceil(high)};
  std::string out;
  open_plot(out, "Answers lost: estimate and interval", "points of accuracy lost (right is worse)",
            scale, round_step(scale.high - scale.low), families.size());
  const auto end = std::back_inserter(out);
  double y = kTop + kRowHeight / 2;
  for (const FamilyCertificate* family : families) {
    fmt::format_to(end,
                   "<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>"
                   "<g class=\"{}\"><path class=\"whisker\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>"
                   "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"/></g>\n",
                   kLeft - 10, y + 4, escaped(family->name), name(family->verdict),
                   scale.at(100 * family->interval_low), y, scale.at(100 * family->interval_high),
                   scale.at(100 * family->loss), y);
    y += kRowHeight;
  }
  fmt::format_to(end,
                 "<path class=\"limit\" d=\"M{0:.1f} {1:.1f}V{2:.1f}\"/><text x=\"{3:.1f}\" "
                 "y=\"{4:.1f}\">allowed: {5:g}</text></svg>\n",
                 scale.at(delta), kTop - 6, y - kRowHeight / 2, scale.at(delta) + 4, kTop - 4,
                 delta);
  return out;
}

std::string accuracy_plot(const Certificate& certificate) {
  const auto families = answered(certificate);
  const Scale scale{0, 100};
  std::string out;
  open_plot(out, "Right answers: base (grey) and variant", "per cent", scale, 10, families.size());
  const auto end = std::back_inserter(out);
  double y = kTop;
  for (const FamilyCertificate* family : families) {
    fmt::format_to(
        end,
        "<text x=\"{0:.0f}\" y=\"{1:.1f}\" text-anchor=\"end\">{2}</text>"
        "<rect class=\"base\" x=\"{3:.1f}\" y=\"{4:.1f}\" width=\"{5:.1f}\" height=\"9\"/>"
        "<rect class=\"{6}\" x=\"{3:.1f}\" y=\"{7:.1f}\" width=\"{8:.1f}\" height=\"9\"/>\n",
        kLeft - 10, y + kRowHeight / 2 + 4, escaped(family->name), kLeft, y + 5,
        scale.at(100 * family->accuracy_base) - kLeft, name(family->verdict), y + 15,
        scale.at(100 * family->accuracy_variant) - kLeft);
    y += kRowHeight;
  }
  return out + "</svg>\n";
}

std::string headline(const Certificate& certificate, CheckOutcome outcome) {
  int passed = 0;
  int refused = 0;
  int unknown = 0;
  for (const FamilyCertificate& family : certificate.families) {
    passed += family.verdict == Verdict::kPass ? 1 : 0;
    refused += family.verdict == Verdict::kRefuse ? 1 : 0;
    unknown += family.verdict == Verdict::kInconclusive ? 1 : 0;
  }
  if (outcome == CheckOutcome::kNoControl) {
    return "The base model does not repeat its own answers, so nothing can be said about the "
           "variant.";
  }
  const double delta = 100 * certificate.delta;
  std::string text;
  if (passed > 0) {
    fmt::format_to(std::back_inserter(text),
                   "<b>{} of {} task families pass</b>: the variant may be used for them; it loses "
                   "at most {:g} points of accuracy. ",
                   passed, certificate.families.size(), delta);
  }
  if (refused > 0) {
    fmt::format_to(std::back_inserter(text),
                   "<b>{} must not use the variant</b>: it loses more than that. ", refused);
  }
  if (unknown > 0) {
    fmt::format_to(std::back_inserter(text),
                   "<b>{} could not be decided</b>: keep the base for them.", unknown);
  }
  return text;
}

void append_chips(std::string& out, const Certificate& certificate) {
  out += "<div class=\"chips\">\n";
  for (const FamilyCertificate& family : certificate.families) {
    fmt::format_to(std::back_inserter(out), "<span class=\"{}\">{}: {}</span>\n",
                   name(family.verdict), escaped(family.name),
                   verdict_text(family.verdict, family.degraded));
  }
  out += "</div>\n";
}

void append_numbers(std::string& out, const Certificate& certificate) {
  out +=
      "<h2>Every number</h2>\n<table><tr><th>family</th><th>verdict</th><th>n</th><th>base %</th>"
      "<th>variant %</th><th>b</th><th>c</th><th>loss</th><th>interval</th><th>p (Holm)</th>"
      "<th>power</th><th>KLD</th><th>same top %</th></tr>\n";
  const auto end = std::back_inserter(out);
  const auto measured = [](double value, double scale, int digits) {
    return value < 0 ? std::string("–") : fmt::format("{:.{}f}", scale * value, digits);
  };
  for (const FamilyCertificate& family : certificate.families) {
    fmt::format_to(end,
                   "<tr><td>{} v{}</td><td class=\"text\">{}{}</td><td>{}</td><td>{:.1f}</td>"
                   "<td>{:.1f}</td><td>{}</td><td>{}</td><td>{:.2f}</td><td>{:.2f} … {:.2f}</td>"
                   "<td>{:.2g}</td><td>{:.2f}</td><td>{}</td><td>{}</td></tr>\n"
                   "<tr><td></td><td class=\"text\" colspan=\"12\">{}</td></tr>\n",
                   escaped(family.name), family.version,
                   verdict_text(family.verdict, family.degraded), family.early ? ", early" : "",
                   family.n, 100 * family.accuracy_base, 100 * family.accuracy_variant, family.b,
                   family.c, 100 * family.loss, 100 * family.interval_low,
                   100 * family.interval_high, family.p, family.power, measured(family.kld, 1, 4),
                   measured(family.same_top, 100, 1), escaped(family.why));
  }
  out += "</table>\n";
}

void append_method(std::string& out, const Certificate& certificate, const CheckResult& result) {
  fmt::format_to(
      std::back_inserter(out),
      "<h2>How to read it</h2>\n<ul>\n"
      "<li>Both models answered the same questions, greedily. <b>b</b> counts answers that the "
      "base "
      "got right and the variant wrong, <b>c</b> the reverse; the loss is (b − c) / n.</li>\n"
      "<li><b>PASS</b>: the upper end of the loss's interval is below {0:g} points. <b>REFUSE</b>: "
      "the lower end is above. Each is wrong with a probability of {1:g} % at most. Otherwise "
      "<b>inconclusive</b>, which counts as not certified.</li>\n"
      "<li><b>degraded</b>: some loss is certain (exact one-sided McNemar test, Holm over "
      "families), whether or not it is small enough to pass.</li>\n"
      "<li>Clear cases end <b>early</b>, by a test that may be looked at after every item; its "
      "share of the permitted error is {2:g} %, and the interval is then valid at any stopping "
      "time. Else Tango's score interval, guarded by an exact test. Where losses crowd in few "
      "templates, its upper end is the cluster-robust one.</li>\n"
      "<li><b>power</b>: the chance that a variant without any loss had to pass, at the observed "
      "share of flips. <b>KLD</b>, same top: divergence on right answers; it refuses beyond limits "
      "and never passes.</li>\n"
      "<li>Control: the base asked twice in batches of different sizes: {3} of {4} answers "
      "differ, {5} flip between right and wrong.</li>\n</ul>\n",
      100 * certificate.delta, 100 * certificate.error, 100 * certificate.early_error,
      result.control.texts_differ, result.control.items, certificate.control_flips);
}

void append_examples(std::string& out, const CheckResult& result) {
  bool any = false;
  for (const FamilyReport& family : result.families) {
    for (const Example& example : family.examples) {
      if (!any) out += "<h2>Answers that were lost</h2>\n";
      any = true;
      fmt::format_to(std::back_inserter(out),
                     "<details><summary>{} {}: {}</summary><pre>{}</pre><p>base</p><pre>{}</pre>"
                     "<p>variant</p><pre>{}</pre></details>\n",
                     escaped(family.name), example.index, escaped(example.why),
                     escaped(example.question), escaped(example.base_answer),
                     escaped(example.variant_answer));
    }
  }
}

void append_identity(std::string& out, const Certificate& of) {
  out += "<h2>What was compared</h2>\n<table>\n";
  const auto row = [&](std::string_view what, const std::string& text) {
    fmt::format_to(std::back_inserter(out),
                   "<tr><td>{}</td><td class=\"text\"><code>{}</code></td></tr>\n", what,
                   escaped(text));
  };
  row("base", of.base);
  row("base SHA-256", of.base_hash);
  row("variant", of.variant);
  row("variant SHA-256", of.variant_hash);
  row("engine",
      fmt::format("Puna {}, {} {}, activations {}", of.build, of.device, of.isa, of.activations));
  row("KV type", fmt::format("{}, base {}", of.kv_dtype, of.base_kv_dtype));
  row("chat template", of.template_name);
  row("items", fmt::format("seed {}, difficulty {}", of.seed, of.difficulty));
  row("signed", fmt::format("{} by key {}", of.signature, of.key_id));
  out += "</table>\n";
}

}  // namespace

std::string report_html(const Certificate& certificate, const CheckResult& result) {
  const CheckOutcome outcome = outcome_of(result);
  std::string out = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n";
  out +=
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Quantisation "
      "check</title>\n";
  out += kStyle;
  fmt::format_to(std::back_inserter(out),
                 "\n<h1>{}: {}</h1>\n<p>against {}</p>\n<p class=\"headline\">{}</p>\n",
                 escaped(certificate.variant), name(outcome), escaped(certificate.base),
                 headline(certificate, outcome));
  append_chips(out, certificate);
  if (!answered(certificate).empty()) out += loss_plot(certificate) + accuracy_plot(certificate);
  append_numbers(out, certificate);
  append_method(out, certificate, result);
  append_examples(out, result);
  append_identity(out, certificate);
  return out + "</html>\n";
}

}  // namespace puna::check
