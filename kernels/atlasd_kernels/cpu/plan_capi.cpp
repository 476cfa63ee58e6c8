// The C interface of planning, as atlasd_kernels.cpu.plan declares it.
#include "plan.h"

#define ATLASD_API extern "C" __attribute__((visibility("default")))

using namespace atlasd::text;

ATLASD_API Planner* atlasd_plan_new(Text* text) { return new Planner(*text); }

ATLASD_API void atlasd_plan_free(Planner* planner) { delete planner; }

ATLASD_API const Outcome* atlasd_plan_outcome(const Planner* planner) { return &planner->outcome; }

ATLASD_API int32_t atlasd_plan_plan(Planner* planner, const Question* questions, int32_t count,
                                    const Prices* prices, int32_t clock, int32_t resume) {
  planner->text().clock = clock;
  return planner->plan(questions, count, *prices, resume != 0);
}

ATLASD_API void atlasd_plan_offer(Planner* planner, Stream* stream, int32_t source,
                                  const int32_t* tokens, const double* confidence,
                                  int32_t count) {
  planner->offer(*stream, source, tokens, confidence, count);
}

// Returns how many tokens there was room for.
ATLASD_API int32_t atlasd_plan_settle(Planner* planner, Stream* stream, const int32_t* tokens,
                                      int32_t count, int32_t drafted, int32_t accepted,
                                      const int32_t* best, int32_t rows, Settled* out) {
  return planner->settle(*stream, tokens, count, drafted, accepted, best, rows, *out);
}

ATLASD_API void atlasd_plan_learn(Planner* planner, Stream* stream, const int32_t* tokens,
                                  int32_t count, const int32_t* best, int32_t rows) {
  planner->learn(*stream, tokens, count, best, rows);
}
