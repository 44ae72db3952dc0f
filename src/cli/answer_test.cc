// SPDX-License-Identifier: Apache-2.0
// Who reads an engine's answers leaves after the engine has stopped: it may still be about to wake
// a reader who has seen the last event.
#include "cli/answer.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "cli/engine_answerer.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/signals.h"

namespace puna::cli {
namespace {

class AnswererTest : public testing::Test {
 protected:
  AnswererTest() : model(load()) { model.engine().start(); }

  static LoadedModel load() {
    ModelFlags flags;
    flags.model = std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_gguf/tiny.gguf";
    flags.threads = 1;
    LoadSize size;
    size.needs_chat_template = false;
    Result<LoadedModel> loaded = LoadedModel::load(flags, size);
    EXPECT_TRUE(loaded.ok()) << loaded.error().message();
    return std::move(loaded).value();
  }

  static engine::Request request() {
    engine::Request made;
    made.id = "test";
    made.prompt = {1, 2, 3};
    made.stop.max_tokens = 2;
    return made;
  }

  bool engine_has_stopped() {
    std::vector<engine::Request> requests;
    requests.push_back(request());
    const auto submission = model.engine().submit(std::move(requests), nullptr);
    EXPECT_TRUE(submission.ok());
    return submission->refusal != nullptr && submission->refusal->draining;
  }

  Signals signals;
  LoadedModel model;
};

TEST_F(AnswererTest, StopsTheEngineBeforeItGoes) {
  {
    Answerer answerer(model, signals);
    const Result<Answer> answer = answerer.stream(request());
    ASSERT_TRUE(answer.ok()) << answer.error().message();
    EXPECT_FALSE(engine_has_stopped());
  }
  EXPECT_TRUE(engine_has_stopped());
}

TEST_F(AnswererTest, OfACheckStopsTheEngineToo) {
  {
    EngineAnswerer answerer(model);
    EXPECT_FALSE(engine_has_stopped());
  }
  EXPECT_TRUE(engine_has_stopped());
}

}  // namespace
}  // namespace puna::cli
