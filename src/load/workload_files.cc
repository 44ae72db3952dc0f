// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <boost/json.hpp>
#include <fstream>

#include "load/workload.h"

namespace puna::load {
namespace {

namespace json = boost::json;

constexpr size_t kMaxLineBytes = size_t{1} << 20U;

// Calls line(text) -> Result<> for each that says something; errors get file and line in front.
template <typename Line>
Result<> for_each_line(const std::string& path, const Line& line) {
  std::ifstream file(path);
  if (!file) return Error(ErrorCode::kIo, "{}: cannot be read", path);
  std::string text;
  for (size_t number = 1; std::getline(file, text); ++number) {
    if (text.ends_with('\r')) text.pop_back();
    if (text.find_first_not_of(" \t") == std::string::npos || text.front() == '#') continue;
    Result<> result =
        text.size() > kMaxLineBytes
            ? Result<>(Error(ErrorCode::kInvalidArgument, "longer than {} bytes", kMaxLineBytes))
            : line(text);
    if (!result.ok()) {
      return std::move(result).error().with_context(fmt::format("{}:{}", path, number));
    }
  }
  return Ok{};
}

// The number under the first of the names that is there.
Result<std::optional<double>> number_of(const json::object& entry,
                                        std::initializer_list<const char*> names, double low,
                                        double high) {
  for (const char* name : names) {
    const json::value* value = entry.if_contains(name);
    if (value == nullptr) continue;
    json::error_code ec;
    const auto number = value->to_number<double>(ec);
    if (ec || !(number >= low && number <= high)) {
      return Error(ErrorCode::kInvalidArgument, "\"{}\" must be a number from {} to {}", name, low,
                   high);
    }
    return std::optional<double>(number);
  }
  return std::optional<double>();
}

std::string text_of(const json::object& entry, const char* name) {
  const json::value* value = entry.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->as_string()) : std::string();
}

std::optional<int32_t> as_tokens(const std::optional<double>& number) {
  if (!number) return std::nullopt;
  return static_cast<int32_t>(*number);
}

Result<TraceEntry> parse_entry(const std::string& line) {
  json::error_code ec;
  const json::value value = json::parse(line, ec);
  if (ec || !value.is_object()) {
    return Error(ErrorCode::kInvalidArgument, "no JSON object: {}", line.substr(0, 60));
  }
  const json::object& object = value.as_object();
  constexpr double kMaxSeconds = 1e7;
  ASSIGN_OR_RETURN(const auto at_s, number_of(object, {"at_s"}, 0, kMaxSeconds));
  ASSIGN_OR_RETURN(const auto at_ms, number_of(object, {"timestamp"}, 0, kMaxSeconds * 1e3));
  if (!at_s && !at_ms) {
    return Error(ErrorCode::kInvalidArgument, "\"at_s\" or \"timestamp\" (ms) is missing");
  }
  ASSIGN_OR_RETURN(const auto prompt,
                   number_of(object, {"prompt_tokens", "input_length"}, 1, kMaxTokens));
  ASSIGN_OR_RETURN(const auto output,
                   number_of(object, {"output_tokens", "output_length"}, 1, kMaxTokens));
  return TraceEntry{.at_s = at_s ? *at_s : *at_ms * 1e-3,
                    .prompt_tokens = as_tokens(prompt),
                    .output_tokens = as_tokens(output),
                    .tenant = text_of(object, "tenant"),
                    .cls = text_of(object, "class")};
}

}  // namespace

Result<std::vector<TraceEntry>> read_trace(const std::string& path) {
  std::vector<TraceEntry> trace;
  RETURN_IF_ERROR(for_each_line(path, [&](const std::string& line) -> Result<> {
    if (trace.size() >= kMaxPlannedRequests) {
      return Error(ErrorCode::kInvalidArgument, "more than {} requests", kMaxPlannedRequests);
    }
    ASSIGN_OR_RETURN(TraceEntry entry, parse_entry(line));
    trace.push_back(std::move(entry));
    return Ok{};
  }));
  if (trace.empty()) return Error(ErrorCode::kInvalidArgument, "{}: no requests in it", path);
  std::stable_sort(trace.begin(), trace.end(),
                   [](const TraceEntry& a, const TraceEntry& b) { return a.at_s < b.at_s; });
  return trace;
}

Result<std::vector<Sender>> read_senders(const std::string& path) {
  std::vector<Sender> senders;
  RETURN_IF_ERROR(for_each_line(path, [&](const std::string& line) -> Result<> {
    if (senders.size() >= kMaxTenants) {
      return Error(ErrorCode::kInvalidArgument, "more than {} names", kMaxTenants);
    }
    ASSIGN_OR_RETURN(Sender sender, Sender::parse(line));
    senders.push_back(std::move(sender));
    return Ok{};
  }));
  if (senders.empty()) return Error(ErrorCode::kInvalidArgument, "{}: no names in it", path);
  return senders;
}

}  // namespace puna::load
