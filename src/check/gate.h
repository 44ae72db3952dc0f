// SPDX-License-Identifier: Apache-2.0
// The verdict on one family, from a stream of paired outcomes. No model is known here.
//
// A variant passes when its loss is below delta for certain, is refused when it is above delta for
// certain, and stays unknown otherwise. The permitted error is spent twice: a small part on a test
// that looks after every item and ends clear cases early (sequential_test.h), the rest on the look
// at the end (paired_stats.h); together no more than `error`. Where losses crowd in few templates
// by more than chance, a pass needs the upper end of the wider, cluster-robust interval: other
// templates may be like those. A refusal speaks of the items as they are drawn, which are
// independent.
//
//   FamilyGate gate(config, /*planned=*/500);
//   while (!gate.decided()) gate.add({base_right, variant_right, item.cluster});
//   FamilyResult result = gate.result();
//   ... correct_degraded(results);   // Holm over all families
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "check/certificate.h"
#include "check/paired_stats.h"

namespace puna::check {

struct GateConfig {
  double delta = 0.03;         // largest loss that passes
  double error = 0.05;         // of a false pass, and of a false refusal
  double early_error = 0.005;  // the part of it for early ends; 0: always ask all items
  double base_floor = 0.10;    // a base that is right less often has nothing to lose
};

struct Outcome {
  bool base_right = false;
  bool variant_right = false;
  int32_t cluster = 0;
};

struct FamilyResult {
  PairedCounts counts;
  int64_t base_right = 0;
  int64_t variant_right = 0;
  int64_t planned = 0;
  Interval loss;  // each end errs with `interval_error` at most
  double interval_error = 0;
  double p = 1;           // of "no loss", with early looks paid for; correct_degraded() replaces it
  double power = 0;       // chance to pass without any loss, at these flips and all planned items
  double detectable = 0;  // loss that a two-sided test at 5 % finds with 80 %, at these flips
  size_t clusters = 0;
  bool clustered = false;  // the upper end is the clusters'
  Verdict verdict = Verdict::kInconclusive;
  bool degraded = false;
  bool early = false;
  std::string why;
};

class FamilyGate {
 public:
  FamilyGate(const GateConfig& config, int64_t planned) : config_(config), planned_(planned) {}

  // Not after decided().
  void add(const Outcome& outcome);
  // A verdict is certain, or all planned items came.
  bool decided() const { return early_ || counts_.items >= planned_; }
  const PairedCounts& counts() const { return counts_; }
  FamilyResult result() const;

 private:
  bool early_verdict() const;
  double upper_end(double of_items, double error) const;
  void judge(FamilyResult& result) const;

  GateConfig config_;
  int64_t planned_;
  PairedCounts counts_;
  int64_t base_right_ = 0;
  int64_t variant_right_ = 0;
  std::vector<double> differences_;
  std::vector<int32_t> clusters_;
  bool early_ = false;
};

// Replaces every p by Holm's and sets `degraded` where it is at most `error`.
void correct_degraded(std::span<FamilyResult> results, double error);

// With so many items a variant without loss passes in 80 of 100 checks, where 8 % of the items
// flip.
int64_t planned_items(const GateConfig& config);

// The fewest items with which a variant that never differs from its base would pass.
int64_t fewest_items(const GateConfig& config);

// The base against itself, in other batches.
struct Control {
  int64_t items = 0;
  int64_t lost = 0;
  int64_t gained = 0;
  int64_t texts_differ = 0;  // answers with another text, right or wrong alike

  // False when the engine itself changes answers: nothing can be said about a variant then.
  bool ok() const;
};

// Teacher-forced divergence on a family's answers: refuses, and never passes.
struct Screen {
  double mean_kld = -1;  // nats; -1: not measured
  double same_top = -1;  // share
  int64_t tokens = 0;
};
struct ScreenLimits {
  double mean_kld = 0.10;
  double same_top = 0.85;
};
bool refused_by_screen(const Screen& screen, const ScreenLimits& limits);

}  // namespace puna::check
