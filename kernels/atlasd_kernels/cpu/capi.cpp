// The C interface that ctypes loads. Errors come back as text, valid until the thread's next call.
#include <algorithm>
#include <cstring>
#include <exception>
#include <numeric>
#include <string>

#include "decoder.h"
#include "measure.h"
#include "sixteen.h"
#include "twelve.h"
#include "twelve_fp16.h"

#define ATLASD_API extern "C" __attribute__((visibility("default")))

using namespace atlasd;

namespace {

thread_local std::string last_error;

template <class F>
const char* guarded(F&& body) {
  try {
    const char* problem = body();
    if (!problem) return nullptr;
    last_error = problem;
  } catch (const std::exception& e) {
    last_error = e.what();
  }
  return last_error.c_str();
}

}  // namespace

// Of this and all other interfaces here: raised together with VERSION in library.py.
ATLASD_API int32_t atlasd_version() { return 9; }

ATLASD_API int32_t atlasd_measure_threads() { return measure_threads(); }

ATLASD_API double atlasd_read_bandwidth(int32_t threads, int64_t bytes) {
  return read_bandwidth(threads, bytes);
}

ATLASD_API const char* atlasd_isa(int32_t index) {
  const Kernels* const* list = available_kernels();
  for (int32_t i = 0; list[i]; i++)
    if (i == index) return list[i]->name;
  return nullptr;
}

ATLASD_API const char* atlasd_isa_note() { return kernels_note(); }

ATLASD_API const char* atlasd_create(const Config* config, Decoder** out) {
  return guarded([&]() -> const char* {
    *out = new Decoder(*config);
    return nullptr;
  });
}

ATLASD_API void atlasd_destroy(Decoder* decoder) { delete decoder; }

ATLASD_API const char* atlasd_forward(Decoder* decoder, const int32_t* tokens,
                                      const int32_t* slots, const int32_t* positions, int64_t rows,
                                      const int32_t* wanted, int64_t count, float* logits) {
  return guarded([&]() -> const char* {
    const RowBatch batch{tokens, slots, positions, rows};
    if (const char* problem = decoder->check(batch, wanted, count)) return problem;
    decoder->forward(batch, wanted, count, logits);
    return nullptr;
  });
}

// tokens: [rows], which go to `position` of `slot` on. chose: null, or the target's state that chose
// the last of them. correction: null, or the one to draft with; then `before` is the token before
// the last.
ATLASD_API const char* atlasd_draft(Decoder* decoder, const Correction* correction, int32_t before,
                                    const int32_t* tokens, int64_t rows, int32_t slot,
                                    int32_t position, const float* chose, int64_t limit, float stop,
                                    const Noise* noise, int32_t reduced, int32_t* drafted,
                                    float* probabilities, int64_t* count) {
  return guarded([&]() -> const char* {
    if (rows < 1 || rows > kStepRows) return "a draft begins with 1 to 256 rows";
    int32_t slots[kStepRows], positions[kStepRows];
    std::fill_n(slots, rows, slot);
    std::iota(positions, positions + rows, position);
    const RowBatch batch{tokens, slots, positions, rows};
    if (const char* problem = decoder->check_chain(batch, correction ? &before : nullptr))
      return problem;
    *count = decoder->draft(batch, chose, limit, stop, *noise, reduced != 0, drafted, probabilities,
                            correction, before);
    return nullptr;
  });
}

ATLASD_API void atlasd_set_carry(Decoder* decoder, const float* weight) {
  decoder->set_carry(weight);
}

ATLASD_API const char* atlasd_set_smear(Decoder* decoder, const float* weight) {
  return guarded([&]() -> const char* { return decoder->set_smear(weight); });
}

ATLASD_API void atlasd_keep_states(Decoder* decoder, float* out) { decoder->keep_states(out); }

ATLASD_API const char* atlasd_correction(const Decoder* decoder, const CorrectionWeights* weights,
                                         Correction** out) {
  return guarded([&]() -> const char* {
    if (const char* problem = decoder->check_correction(*weights)) return problem;
    *out = decoder->make_correction(*weights);
    return nullptr;
  });
}

ATLASD_API void atlasd_correction_free(Correction* correction) { delete correction; }

ATLASD_API const char* atlasd_states(Decoder* decoder, const int32_t* tokens,
                                     const int32_t* slots, const int32_t* positions, int64_t rows,
                                     const float* chose, float* states) {
  return guarded([&]() -> const char* {
    const RowBatch batch{tokens, slots, positions, rows};
    if (const char* problem = decoder->check(batch, nullptr, 0)) return problem;
    decoder->states(batch, chose, states);
    return nullptr;
  });
}

ATLASD_API const char* atlasd_reduce_head(Decoder* decoder, const int32_t* tokens, int64_t count) {
  return guarded([&]() -> const char* {
    decoder->reduce_head(tokens, count);
    return nullptr;
  });
}

ATLASD_API void atlasd_copy_prefix(Decoder* decoder, int32_t source, int32_t target,
                                   int32_t length) {
  decoder->copy_prefix(source, target, length);
}

ATLASD_API int64_t atlasd_slot_bytes(const Decoder* decoder) { return decoder->slot_bytes(); }
ATLASD_API int64_t atlasd_scratch_bytes(const Decoder* decoder) { return decoder->scratch_bytes(); }
ATLASD_API int64_t atlasd_logits_ld(const Decoder* decoder) { return decoder->logits_ld(); }
ATLASD_API const char* atlasd_isa_of(const Decoder* decoder) { return decoder->kernels().name; }
ATLASD_API void atlasd_profile(const Decoder* decoder, Profile* out) { *out = decoder->profile(); }

ATLASD_API void atlasd_set_profiling(Decoder* decoder, int32_t on) {
  decoder->set_profiling(on != 0);
}

ATLASD_API int64_t atlasd_panel_bytes(int32_t format, int64_t k) {
  return panel_bytes(static_cast<Format>(format), k);
}

ATLASD_API void atlasd_pack(const Packing* packing, int32_t threads) {
  Pool pool(threads);
  const long chunks = (packing->rows + 31) / 32;
  // 32 rows fill whole panels, except where panels are shared by gate and up: 16 and 16
  for (long first = 0; first < chunks; first += 65535) {
    const long n = chunks - first < 65535 ? chunks - first : 65535;
    pool.run(n, [&](long c) {
      const long begin = (first + c) * 32;
      pack_rows(*packing, begin, begin + 32 < packing->rows ? begin + 32 : packing->rows);
    });
  }
}

// The format that this instruction set (null: the best) keeps bf16 weights in.
ATLASD_API int32_t atlasd_kept_format(const char* isa) {
  const Kernels* kernels = find_kernels(isa);
  return static_cast<int32_t>(kernels ? kernels->kept : Format::bf16);
}

// A packed bf16 matrix in one of the formats that are kept instead; `out` starts out zeroed. Returns
// the bytes written, 0 if it is better left alone.
ATLASD_API int64_t atlasd_shorten(int32_t format, const uint8_t* bf16, int64_t columns, int64_t k,
                                  uint8_t* out, int32_t threads) {
  Pool pool(threads);
  const long panels = padded(columns, kPanel) / kPanel, depth = padded(k, kGroupPadding);
  if (static_cast<Format>(format) == Format::sixteen)
    return shorten_sixteen(pool, bf16, panels, depth, out) ? panels * sixteen_panel_bytes(depth) : 0;
  if (static_cast<Format>(format) == Format::twelve)
    return shorten(pool, bf16, panels, depth, out);
  return shorten_fp16(pool, bf16, panels, depth, out) ? panels * fp16_panel_bytes(depth) : 0;
}

ATLASD_API void atlasd_unpack_column(int32_t format, const uint8_t* data, int64_t k,
                                     int64_t column, float* out) {
  unpack_column(static_cast<Format>(format), data, k, column, k, out);
}

ATLASD_API uint64_t atlasd_checksum(const uint8_t* data, int64_t bytes) {
  return checksum(data, bytes);
}

// logits: [rows, ld], of which `vocab` count.
ATLASD_API void atlasd_choose(const float* logits, int64_t rows, int64_t ld, int64_t vocab,
                              const Noise* noise, int32_t* tokens) {
  const Kernels* kernels = find_kernels(nullptr);
  for (int64_t r = 0; r < rows; r++) tokens[r] = kernels->choose(logits + r * ld, vocab, noise[r]);
}

ATLASD_API void atlasd_top_k(const float* logits, int64_t rows, int64_t ld, int64_t vocab,
                             int32_t k, int32_t* ids, float* values, float* totals) {
  const Kernels* kernels = find_kernels(nullptr);
  for (int64_t r = 0; r < rows; r++) {
    kernels->top_k(logits + r * ld, vocab, k, ids + r * k, values + r * k);
    totals[r] = kernels->log_sum_exp(logits + r * ld, vocab);
  }
}
