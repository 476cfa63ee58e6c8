// The C interface of text drafting, as atlasd_kernels.cpu.text declares it.
#include <cstring>

#include "text.h"

#define ATLASD_API extern "C" __attribute__((visibility("default")))

using namespace atlasd::text;

ATLASD_API Text* atlasd_text_new() { return new Text(); }

ATLASD_API void atlasd_text_free(Text* text) { delete text; }

ATLASD_API void atlasd_text_attach(Text* text, const Arrays* arrays) { text->arrays = *arrays; }

ATLASD_API int32_t atlasd_text_offset(Text* text, double cap) {
  text->confidence.offsets.emplace_back().cap = cap;
  return int32_t(text->confidence.offsets.size()) - 1;
}

ATLASD_API void atlasd_text_forget_rules(Text* text) { text->rules.clear(); }

// Learned numbers by name, for reading and writing: the pointer is valid until the next offset.
ATLASD_API double* atlasd_text_state(Text* text, int32_t which, int64_t* count) {
  switch (which) {
    case 0:
      *count = int64_t(text->masses.value.size());
      return text->masses.value.data();
    case 1:
      *count = int64_t(text->masses.seen.size());
      return text->masses.seen.data();
    case 2:
      *count = int64_t(text->confidence.weights.size());
      return text->confidence.weights.data();
    case 3:
      *count = int64_t(text->confidence.information.size());
      return text->confidence.information.data();
    case 4:
      *count = 4;
      return &text->confidence.bias.value;
    default:
      *count = int64_t(text->confidence.offsets.size()) * 4;
      return reinterpret_cast<double*>(text->confidence.offsets.data());
  }
}

ATLASD_API void atlasd_text_counters(const Text* text, Counters* out) { *out = text->counters; }

ATLASD_API Stream* atlasd_text_begin(Text* text, const int32_t* tokens, int32_t count,
                                     int32_t repository, int32_t language_offset,
                                     int32_t repository_offset, int32_t learn) {
  Stream* stream = text->fresh_stream();
  stream->repository = repository;
  stream->language_offset = language_offset;
  stream->repository_offset = repository_offset;
  stream->learn = learn != 0;
  text->read(*stream, tokens, count);
  return stream;
}

ATLASD_API void atlasd_text_end(Text* text, Stream* stream) { text->spare_stream(stream); }

ATLASD_API void atlasd_text_tail(Stream* stream, int32_t piece, int32_t limit) {
  stream->tail_piece = piece;
  stream->tail_limit = limit;
}

ATLASD_API void atlasd_text_propose(Text* text, Stream* stream, const int32_t* after,
                                    int32_t count, int32_t limit, double least, int32_t clock,
                                    Drafted* out) {
  text->clock = clock;
  text->propose(*stream, after, count, limit, least, *out);
}

ATLASD_API void atlasd_text_insert(Text* text, const int32_t* tokens, int32_t count,
                                   int32_t first, int32_t skip) {
  text->insert(tokens, count, first, skip);
}

ATLASD_API int32_t atlasd_text_append(Text* text, Stream* stream, const int32_t* tokens,
                                      int32_t count) {
  return text->append(*stream, tokens, count);
}

ATLASD_API void atlasd_text_observe(Text* text, Stream* stream, const int32_t* tokens,
                                    int32_t count) {
  text->observe(*stream, tokens, count);
}
