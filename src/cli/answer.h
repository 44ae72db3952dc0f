// SPDX-License-Identifier: Apache-2.0
// One answer of the engine, written to stdout as it comes. Main thread; the engine runs on its own.
//
//   Answerer answerer(model, signals);
//   ASSIGN_OR_RETURN(const Answer answer, answerer.stream(std::move(request)));
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "cli/loaded_model.h"
#include "cli/signals.h"
#include "engine/request.h"

namespace puna::cli {

struct Answer {
  std::string text;
  bool interrupted = false;  // by Ctrl-C
  bool out_of_length = false;
};

class Answerer {
 public:
  Answerer(LoadedModel& model, Signals& signals);
  ~Answerer();  // stops the engine

  // Prints and returns the text. Errors: the engine's refusals, a prompt that is too long.
  Result<Answer> stream(engine::Request request);

 private:
  class EventFdWaker;

  LoadedModel& model_;
  Signals& signals_;
  std::unique_ptr<EventFdWaker> waker_;
};

}  // namespace puna::cli
