// SPDX-License-Identifier: Apache-2.0
// What a check found, for people: a table for the terminal and one page of HTML that loads nothing.
// Both are functions of the result alone: no dates, no durations, so the same seed gives the same
// bytes.
#pragma once

#include <string>
#include <string_view>

#include "check/certificate.h"
#include "check/check_run.h"

namespace puna::check {

// The certificate of a result, not signed yet: `head` has everything but control and families.
Certificate certificate_of(Certificate head, const CheckResult& result);

std::string report_table(const Certificate& certificate, const CheckResult& result);
std::string report_html(const Certificate& certificate, const CheckResult& result);

// "PASS", "PASS, degraded", "REFUSE", "inconclusive".
std::string verdict_text(Verdict verdict, bool degraded);

}  // namespace puna::check
