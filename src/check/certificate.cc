// SPDX-License-Identifier: Apache-2.0
#include "check/certificate.h"

#include <fmt/format.h>

#include <array>
#include <boost/json.hpp>
#include <concepts>
#include <iterator>
#include <utility>

#include "base/mapped_file.h"

namespace puna::check {
namespace {

namespace json = boost::json;

constexpr std::string_view kFormat = "puna-check-1";
constexpr size_t kMaxBytes = 1 << 20;
constexpr std::array<Verdict, 3> kVerdicts = {Verdict::kPass, Verdict::kRefuse,
                                              Verdict::kInconclusive};

// The fields in their order, once for writing and once for reading: `field(name, value)`.
template <typename Family, typename Field>
void each_field_of_family(Family& family, Field field) {
  field("name", family.name);
  field("version", family.version);
  field("n", family.n);
  field("accuracy_base", family.accuracy_base);
  field("accuracy_variant", family.accuracy_variant);
  field("b", family.b);
  field("c", family.c);
  field("loss", family.loss);
  field("interval_low", family.interval_low);
  field("interval_high", family.interval_high);
  field("p", family.p);
  field("power", family.power);
  field("kld", family.kld);
  field("same_top", family.same_top);
  field("verdict", family.verdict);
  field("degraded", family.degraded);
  field("early", family.early);
  field("why", family.why);
}

template <typename Whole, typename Field>
void each_field(Whole& certificate, Field field) {
  field("base", certificate.base);
  field("variant", certificate.variant);
  field("base_hash", certificate.base_hash);
  field("variant_hash", certificate.variant_hash);
  field("build", certificate.build);
  field("device", certificate.device);
  field("isa", certificate.isa);
  field("kv_dtype", certificate.kv_dtype);
  field("base_kv_dtype", certificate.base_kv_dtype);
  field("activations", certificate.activations);
  field("template", certificate.template_name);
  field("seed", certificate.seed);
  field("difficulty", certificate.difficulty);
  field("delta", certificate.delta);
  field("error", certificate.error);
  field("early_error", certificate.early_error);
  field("control_items", certificate.control_items);
  field("control_flips", certificate.control_flips);
}

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}
  void operator()(std::string_view name, const std::string& value) {
    key(name);
    out_ += json::serialize(json::string(value));
  }
  void operator()(std::string_view name, Verdict value) {
    (*this)(name, std::string(check::name(value)));
  }
  void operator()(std::string_view name, bool value) {
    key(name);
    out_ += value ? "true" : "false";
  }
  // Nine digits: whoever reads the number and writes it again gets the same text, even where
  // reading is off by the last bit.
  void operator()(std::string_view name, double value) {
    key(name);
    fmt::format_to(std::back_inserter(out_), "{:.9g}", value);
  }
  template <std::integral Number>
  void operator()(std::string_view name, Number value) {
    key(name);
    fmt::format_to(std::back_inserter(out_), "{}", value);
  }

 private:
  void key(std::string_view name) {
    if (out_.back() != '{') out_ += ", ";
    fmt::format_to(std::back_inserter(out_), "\"{}\": ", name);
  }
  std::string& out_;
};

// Takes what it finds; `missing` names the first field that isn't there or is of another kind. What
// else is wrong shows when the text is written again.
class Reader {
 public:
  Reader(const json::object& object, std::string& missing) : object_(object), missing_(missing) {}
  void operator()(std::string_view name, std::string& value) {
    const json::value* found = object_.if_contains(name);
    if (found == nullptr || !found->is_string()) return miss(name);
    value = std::string(found->get_string());
  }
  void operator()(std::string_view name, Verdict& value) {
    std::string text;
    (*this)(name, text);
    for (const Verdict verdict : kVerdicts) {
      if (check::name(verdict) == text) value = verdict;
    }
  }
  void operator()(std::string_view name, bool& value) {
    const json::value* found = object_.if_contains(name);
    if (found == nullptr || !found->is_bool()) return miss(name);
    value = found->get_bool();
  }
  template <typename Number>
  void operator()(std::string_view name, Number& value) {
    const json::value* found = object_.if_contains(name);
    boost::system::error_code error;
    if (found == nullptr || !found->is_number()) return miss(name);
    value = found->to_number<Number>(error);
    if (error) miss(name);
  }

 private:
  void miss(std::string_view name) {
    if (missing_.empty()) missing_ = name;
  }
  const json::object& object_;
  std::string& missing_;
};

// All but the signature: what is signed.
std::string signed_text(const Certificate& certificate) {
  std::string out = fmt::format("{{\"format\": \"{}\"", kFormat);
  Writer write(out);
  each_field(certificate, write);
  write("key_id", certificate.key_id);
  out += ",\n \"families\": [";
  for (const FamilyCertificate& family : certificate.families) {
    if (&family != certificate.families.data()) out += ',';
    out += "\n  {";
    each_field_of_family(family, Writer(out));
    out += '}';
  }
  return out + "]";
}

Error not_a_certificate(const std::string& where, std::string_view what) {
  return Error(ErrorCode::kCorrupt, "{}: not a certificate of puna check: {}", where, what);
}

Result<Certificate> from_object(const json::object& object, const std::string& where) {
  const json::value* format = object.if_contains("format");
  if (format == nullptr || !format->is_string() || format->get_string() != kFormat) {
    return not_a_certificate(where, fmt::format("\"format\" is not \"{}\"", kFormat));
  }
  Certificate certificate;
  std::string missing;
  Reader read(object, missing);
  each_field(certificate, read);
  read("key_id", certificate.key_id);
  read("signature", certificate.signature);
  const json::value* families = object.if_contains("families");
  if (families == nullptr || !families->is_array()) missing = "families";
  if (!missing.empty()) return not_a_certificate(where, fmt::format("no \"{}\"", missing));
  for (const json::value& value : families->get_array()) {
    if (!value.is_object()) return not_a_certificate(where, "a family is no object");
    each_field_of_family(certificate.families.emplace_back(), Reader(value.get_object(), missing));
    if (!missing.empty()) return not_a_certificate(where, fmt::format("no \"{}\"", missing));
  }
  return certificate;
}

}  // namespace

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPass:
      return "pass";
    case Verdict::kRefuse:
      return "refuse";
    case Verdict::kInconclusive:
      return "inconclusive";
  }
  return "";
}

const FamilyCertificate* Certificate::family(std::string_view name) const {
  for (const FamilyCertificate& entry : families) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

bool Certificate::passes(std::string_view family_name) const {
  const FamilyCertificate* entry = family(family_name);
  return entry != nullptr && entry->verdict == Verdict::kPass;
}

std::string certificate_json(const Certificate& certificate) {
  return signed_text(certificate) +
         fmt::format(",\n \"signature\": \"{}\"}}\n", certificate.signature);
}

void sign(Certificate& certificate, const SigningKey& key) {
  certificate.key_id = key.id();
  certificate.signature = key.sign(signed_text(certificate));
}

Result<> verify(const Certificate& certificate, const SigningKey& key) {
  const std::string what = fmt::format("the certificate of {}", certificate.variant);
  if (certificate.key_id != key.id()) {
    return Error(ErrorCode::kInvalidArgument,
                 "{} was signed with the key {}, not with {}: name its file with --key", what,
                 certificate.key_id, key.id());
  }
  if (!same_signature(certificate.signature, key.sign(signed_text(certificate)))) {
    return Error(ErrorCode::kCorrupt, "{} was changed after it was signed: run puna check again",
                 what);
  }
  return Ok{};
}

Result<Certificate> parse_certificate(std::string_view text, const std::string& where) {
  if (text.size() > kMaxBytes) return not_a_certificate(where, "it is too long");
  json::error_code error;
  const json::value value = json::parse(text, error);
  if (error) return not_a_certificate(where, error.message());
  if (!value.is_object()) return not_a_certificate(where, "its JSON is no object");
  ASSIGN_OR_RETURN(Certificate certificate, from_object(value.get_object(), where));
  if (certificate_json(certificate) != text) {
    return not_a_certificate(where, "its text was changed");
  }
  return certificate;
}

Result<Certificate> read_certificate(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  return parse_certificate(text, path);
}

}  // namespace puna::check
