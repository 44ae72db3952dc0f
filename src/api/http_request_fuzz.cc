// SPDX-License-Identifier: Apache-2.0
// Any bytes through what the server does with a connection's bytes, without the socket: the reader
// with its limits, routing, keys, and building the answer. The first byte chooses how the rest is
// split.
#include <cstdint>
#include <memory>

#include "api/http_reader.h"
#include "api/service.h"
#include "engine/solo_run.h"

namespace puna::api {
namespace {

struct World {
  model::Tokenizer tokenizer = engine::tiny_tokenizer();
  model::ChatTemplate chat_template = model::ChatTemplate::choose("llama3", tokenizer).value();
  SteadyClock clock;
  engine::NullBackend backend{{.limits = {.num_blocks = 64,
                                          .max_num_seqs = 8,
                                          .max_batch_tokens = 64,
                                          .max_model_len = 512,
                                          .vocab_size = engine::kTinyVocab}},
                              nullptr};
  engine::Engine engine{{}, backend, tokenizer, clock};
  ServerStatus status;
  ServedModel model{.engine = &engine,
                    .tokenizer = &tokenizer,
                    .chat_template = &chat_template,
                    .names = {"m"},
                    .max_model_len = 512,
                    .build = "fuzz"};
  Service open{model, {}, status, Service::Side::kServing};
  Service guarded{model, {.api_keys = {{.key = "key"}}}, status, Service::Side::kServing};
  Service admin{model, {}, status, Service::Side::kAdmin};
};

// Runs a generation to its end by hand, as the connection would follow it.
void follow(World& world, Generation& generation) {
  if (generation.submit(nullptr)) return;
  std::string events;
  for (size_t before = 0; !generation.poll(events); before = events.size()) {
    const bool stepped = world.engine.step();
    CHECK(stepped || events.size() > before);  // a call of poll() may leave events for the next
  }
  if (generation.streaming()) {
    CHECK(events.ends_with("data: [DONE]\n\n"));
  } else {
    CHECK_EQ(generation.take_response().status, 200);
  }
}

void serve(World& world, const HttpRequest& request) {
  for (Service* service : {&world.open, &world.guarded, &world.admin}) {
    if (auto refusal = service->refuse_head(request)) {
      CHECK_GE(refusal->status, 400);
      serialize(*refusal, request_id_for(request), request.keep_alive, request.method == "HEAD");
      continue;
    }
    Answer answer = service->answer(request);
    if (answer.generation) {
      follow(world, *answer.generation);
    } else {
      CHECK_NE(answer.response.status, 500);
    }
  }
}

}  // namespace
}  // namespace puna::api

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace puna::api;  // NOLINT(google-build-using-namespace)
  static World world;
  if (size == 0) return 0;
  const size_t piece = data[0] == 0 ? size : data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  HttpReader reader({.max_header_bytes = 2048, .max_body_bytes = 4096});
  std::string input;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    input += bytes.substr(at, piece);
    for (;;) {
      const HttpReader::State before = reader.state();
      const size_t used = reader.feed(input);
      input.erase(0, used);
      if (reader.state() == HttpReader::State::kError) return 0;
      if (reader.state() == HttpReader::State::kDone) {
        serve(world, reader.request());
        reader.next();
      } else if (used == 0 && reader.state() == before) {
        break;
      }
    }
  }
  return 0;
}
