// SPDX-License-Identifier: Apache-2.0
#include "check/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace puna::check {
namespace {

FamilyCertificate family_certificate(const FamilyReport& report) {
  const FamilyResult& result = report.result;
  const PairedCounts& counts = result.counts;
  return {.name = report.name,
          .version = report.version,
          .n = counts.items,
          .accuracy_base = share(result.base_right, counts.items),
          .accuracy_variant = share(result.variant_right, counts.items),
          .b = counts.lost,
          .c = counts.gained,
          .loss = counts.loss(),
          .interval_low = result.loss.low,
          .interval_high = result.loss.high,
          .p = result.p,
          .power = result.power,
          .kld = report.screen.mean_kld,
          .same_top = report.screen.same_top,
          .verdict = result.verdict,
          .degraded = result.degraded,
          .early = result.early,
          .why = result.why};
}

}  // namespace

std::string verdict_text(Verdict verdict, bool degraded) {
  switch (verdict) {
    case Verdict::kPass:
      return degraded ? "PASS, degraded" : "PASS";
    case Verdict::kRefuse:
      return "REFUSE";
    case Verdict::kInconclusive:
      return degraded ? "inconclusive, degraded" : "inconclusive";
  }
  return "";
}

Certificate certificate_of(Certificate head, const CheckResult& result) {
  head.control_items = result.control.items;
  head.control_flips = result.control.lost + result.control.gained;
  head.families.clear();
  std::transform(result.families.begin(), result.families.end(), std::back_inserter(head.families),
                 family_certificate);
  return head;
}

std::string report_table(const Certificate& certificate, const CheckResult& result) {
  std::string out = fmt::format("{} against {}: {}\n", certificate.variant, certificate.base,
                                name(outcome_of(result)));
  const auto end = std::back_inserter(out);
  fmt::format_to(end, "{:<13}{:<23}{:>7}{:>9}{:>8}{:>16}{:>9}{:>6}{:>9}\n", "family", "verdict",
                 "base %", "variant", "loss", "interval", "b / c", "n", "p");
  for (const FamilyCertificate& family : certificate.families) {
    fmt::format_to(end, "{:<13}{:<23}", family.name, verdict_text(family.verdict, family.degraded));
    if (family.n > 0) {
      fmt::format_to(
          end, "{:>7.1f}{:>9.1f}{:>8.1f}{:>16}{:>9}{:>6}{:>9.2g}", 100 * family.accuracy_base,
          100 * family.accuracy_variant, 100 * family.loss,
          fmt::format("{:.1f} … {:.1f}", 100 * family.interval_low, 100 * family.interval_high),
          fmt::format("{} / {}", family.b, family.c), family.n, family.p);
    }
    out += '\n';
    if (family.verdict != Verdict::kPass) fmt::format_to(end, "             {}\n", family.why);
  }
  if (result.control.items > 0) {
    fmt::format_to(end, "control: the base asked twice, {} of {} answers differ, {} flip\n",
                   result.control.texts_differ, result.control.items, certificate.control_flips);
  }
  fmt::format_to(end, "loss and interval in points; at most {:g} are allowed; seed {}\n",
                 100 * certificate.delta, certificate.seed);
  return out;
}

}  // namespace puna::check
