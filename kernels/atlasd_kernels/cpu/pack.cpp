#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "sixteen.h"
#include "twelve.h"
#include "twelve_fp16.h"

namespace atlasd {
namespace {

float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float from_fp16(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16, rest = half & 0x7FFFu;
  if (rest >= 0x7C00) return from_bits(sign | 0x7F800000 | (rest & 0x3FF) << 13);
  const float value = from_bits(rest << 13) * 0x1p112f;   // right for denormals too
  return std::copysign(value, from_bits(sign | 0x3F800000));
}

constexpr int group_of(Format f) { return f == Format::int4 ? 32 : 64; }

// Bytes of a panel's group without its scales.
constexpr long group_bytes(Format f) {
  return f == Format::sixteen ? kSixteenScales : kPanel * (f == Format::int8 ? 64 : 16);
}

// Where inside a panel the scale of (group, column) lies.
long scale_offset(Format f, long group, long column) {
  const long values = group_bytes(f);
  return group * (values + 2 * kPanel) + values + ((column % 16) * 2 + column / 16) * 2;
}

// Where (k, column) of a float panel lies.
long float_offset(Format f, long k, long column) {
  return f == Format::fp32 ? k * kPanel + column : k / 2 * 2 * kPanel + 2 * column + k % 2;
}

// The first byte that holds (k, column); for int4 its low nibble if (k / 4) is even.
long value_offset(Format f, long k, long column) {
  const long group = group_of(f), i = k % group;
  const long begin = k / group * (group_bytes(f) + 2 * kPanel) + column * 4;
  if (f == Format::sixteen) return begin + i / 2 * 128 + i % 2 * 2;
  return begin + i / (f == Format::int8 ? 4 : 8) * 128 + i % 4;
}

// Sixteen rows of 64 or fewer k as floats.
struct Strip {
  float values[16][64];
  long k;
};

void read_strip(const Packing& p, long row, long first, Strip& strip) {
  strip.k = std::min<long>(64, p.k - first);
  for (long r = 0; r < 16; r++)
    widen(p.source, p.values, (row + r) * p.k + first, strip.k, strip.values[r]);
}

// Rows [row, row + 16) of a float matrix, which are 16 neighbouring columns of one panel: written
// in whole lines, so that packing is bound by memory.
void pack_float_rows(const Packing& p, long row, uint8_t* panel, long column) {
  Strip strip;
  for (long first = 0; first < p.k; first += 64) {
    read_strip(p, row, first, strip);
    if (p.format == Format::fp32) {
      float* out = reinterpret_cast<float*>(panel) + first * kPanel + column;
      for (long k = 0; k < strip.k; k++)
        for (long r = 0; r < 16; r++) out[k * kPanel + r] = strip.values[r][k];
      continue;
    }
    uint16_t* out = reinterpret_cast<uint16_t*>(panel) + float_offset(p.format, first, column);
    for (long k = 0; k < strip.k; k += 2, out += 2 * kPanel)
      for (long r = 0; r < 16; r++) {
        out[2 * r] = to_bf16(strip.values[r][k]);
        if (k + 1 < strip.k) out[2 * r + 1] = to_bf16(strip.values[r][k + 1]);
      }
  }
}

void pack_integer(Format f, const float* x, long k, uint8_t* panel, long column) {
  const Kernels* kernels = find_kernels(nullptr);
  const int group = group_of(f), levels = f == Format::int8 ? 128 : 8;
  float values[64];
  uint8_t codes[64];
  for (long first = 0; first < k; first += group) {
    const long n = std::min<long>(group, k - first);
    memcpy(values, x + first, n * 4);
    std::fill(values + n, values + group, 0.0f);
    const float step = kernels->quantise_group(values, group, levels, codes);
    const uint16_t scale = to_bf16(f == Format::int4 ? step / 16 : step);
    memcpy(panel + scale_offset(f, first / group, column), &scale, 2);
    if (f == Format::int8) {
      for (int i = 0; i < group; i += 4)
        memcpy(panel + value_offset(f, first + i, column), codes + i, 4);
    } else {
      for (int i = 0; i < group; i += 8) {
        uint8_t bytes[4];
        for (int j = 0; j < 4; j++)
          bytes[j] = static_cast<uint8_t>(codes[i + j] | codes[i + 4 + j] << 4);
        memcpy(panel + value_offset(f, first + i, column), bytes, 4);
      }
    }
  }
}

// One group of a column; a load brings two k, of int8 four, of int4 four and the four behind them.
void unpack_group(Format f, const uint8_t* panel, long first, long column, float* values) {
  uint16_t bits;
  memcpy(&bits, panel + scale_offset(f, first / group_of(f), column), 2);
  const float scale = from_bits(uint32_t{bits} << 16);
  const uint8_t* p = panel + value_offset(f, first, column);
  if (f == Format::sixteen) {
    for (int i = 0; i < 64; i += 2, p += 128) {
      int16_t pair[2];
      memcpy(pair, p, sizeof pair);
      for (int j = 0; j < 2; j++) values[i + j] = static_cast<float>(pair[j]) * scale;
    }
  } else if (f == Format::int8) {
    for (int i = 0; i < 64; i += 4, p += 128)
      for (int j = 0; j < 4; j++) values[i + j] = static_cast<float>(p[j] - 128) * scale;
  } else {
    for (int i = 0; i < 32; i += 8, p += 128)
      for (int j = 0; j < 4; j++) {
        values[i + j] = static_cast<float>((p[j] & 15) * 16 - 128) * scale;
        values[i + 4 + j] = static_cast<float>(p[j] - 136) * scale;
      }
  }
}

}  // namespace

long panel_bytes(Format f, long k) {
  const long columns = kPanel * padded(k, kGroupPadding);
  switch (f) {
    case Format::fp32: return columns * 4;
    case Format::bf16: return columns * 2;
    case Format::int8: return columns + columns / 32;
    case Format::int4: return columns / 2 + columns / 16;
    case Format::twelve: break;   // its panels are of different sizes
    case Format::fp16: return fp16_panel_bytes(padded(k, kGroupPadding));
    case Format::sixteen: return sixteen_panel_bytes(padded(k, kGroupPadding));
  }
  return 0;
}

void widen(Source source, const void* values, long offset, long count, float* out) {
  if (source == Source::fp32) {
    memcpy(out, static_cast<const float*>(values) + offset, count * 4);
    return;
  }
  const uint16_t* p = static_cast<const uint16_t*>(values) + offset;
  if (source == Source::bf16)
    for (long i = 0; i < count; i++) out[i] = from_bits(uint32_t{p[i]} << 16);
  else
    for (long i = 0; i < count; i++) out[i] = from_fp16(p[i]);
}

void pack_rows(const Packing& p, long begin, long end) {
  std::vector<float> row(p.k);
  const long size = panel_bytes(p.format, p.k);
  const bool floats = p.format == Format::fp32 || p.format == Format::bf16;
  for (long i = begin; i < end; i++) {
    const long c = p.paired ? i / 16 * 32 + i % 16 + p.start : p.start + i;
    uint8_t* panel = p.data + c / kPanel * size;
    const long column = c % kPanel;
    if (floats && i + 16 <= end && i % 16 == 0 && column % 16 == 0) {
      pack_float_rows(p, i, panel, column);
      i += 15;
      continue;
    }
    widen(p.source, p.values, i * p.k, p.k, row.data());
    if (p.format == Format::fp32) {
      float* out = reinterpret_cast<float*>(panel) + column;
      for (long k = 0; k < p.k; k++) out[k * kPanel] = row[k];
    } else if (p.format == Format::bf16) {
      uint16_t* out = reinterpret_cast<uint16_t*>(panel);
      for (long k = 0; k < p.k; k++) out[float_offset(p.format, k, column)] = to_bf16(row[k]);
    } else {
      pack_integer(p.format, row.data(), p.k, panel, column);
    }
  }
}

void unpack_column(Format f, const uint8_t* data, long k, long c, long count, float* out) {
  if (f == Format::twelve) return unpack_twelve(data, c, count, out);
  if (f == Format::fp16) return unpack_fp16(data, padded(k, kGroupPadding), c, count, out);
  const uint8_t* panel = data + c / kPanel * panel_bytes(f, k);
  const long column = c % kPanel;
  if (f == Format::fp32) {
    const float* p = reinterpret_cast<const float*>(panel) + column;
    for (long i = 0; i < count; i++) out[i] = p[i * kPanel];
  } else if (f == Format::bf16) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(panel);
    for (long i = 0; i < count; i++)
      out[i] = from_bits(uint32_t{p[float_offset(f, i, column)]} << 16);
  } else {
    for (long first = 0; first < count; first += group_of(f)) {
      float values[64];
      unpack_group(f, panel, first, column, values);
      memcpy(out + first, values, std::min<long>(group_of(f), count - first) * sizeof(float));
    }
  }
}

Matrix gather_columns(const Matrix& from, const int32_t* columns, long count, Format format,
                      Memory& memory) {
  Matrix to{format, nullptr, padded(count, kPanel) / kPanel, from.k, panel_bytes(format, from.k)};
  memory = Memory(to.panels * to.panel_bytes + 4096);   // kernels prefetch a little behind the end
  uint8_t* data = memory.as<uint8_t>();
  to.data = data;
  if (format == Format::fp16) {   // whose columns share bytes
    Memory whole;
    const Matrix bf16 = gather_columns(from, columns, count, Format::bf16, whole);
    for (long p = 0; p < to.panels; p++)
      shorten_fp16_panel(bf16.data + p * bf16.panel_bytes, to.k, data + p * to.panel_bytes);
    return to;
  }
  std::vector<float> values(from.k);
  for (long i = 0; i < count; i++) {
    if (format == from.format) {
      copy_column(format, from.data, columns[i], data, i, from.k);
      continue;
    }
    unpack_column(from.format, from.data, from.k, columns[i], from.k, values.data());
    pack_rows({format, Source::fp32, values.data(), 1, from.k, data, i, 0}, 0, 1);
  }
  return to;
}

void copy_column(Format f, const uint8_t* from, long from_column, uint8_t* to, long to_column,
                 long k) {
  from += from_column / kPanel * panel_bytes(f, k);
  to += to_column / kPanel * panel_bytes(f, k);
  const long a = from_column % kPanel, b = to_column % kPanel;
  if (f == Format::fp32 || f == Format::bf16) {
    const long size = f == Format::fp32 ? 4 : 2;
    for (long i = 0; i < k; i++)
      memcpy(to + float_offset(f, i, b) * size, from + float_offset(f, i, a) * size, size);
    return;
  }
  for (long g = 0; g * group_of(f) < k; g++)
    memcpy(to + scale_offset(f, g, b), from + scale_offset(f, g, a), 2);
  // Four bytes are a quad, or a pair; int4 quads that share them go twice.
  for (long i = 0; i < k; i += f == Format::sixteen ? 2 : 4)
    memcpy(to + value_offset(f, i, b), from + value_offset(f, i, a), 4);
}

uint64_t checksum(const uint8_t* data, long bytes) {
  uint64_t lane[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  long i = 0;
  for (; i + 64 <= bytes; i += 64)
    for (int j = 0; j < 8; j++) {
      uint64_t word;
      memcpy(&word, data + i + 8 * j, 8);
      lane[j] = (lane[j] ^ word) * 0x9E3779B97F4A7C15u;
      lane[j] ^= lane[j] >> 29;
    }
  uint64_t hash = static_cast<uint64_t>(bytes);
  for (; i < bytes; i++) hash = (hash ^ data[i]) * 0x100000001B3u;
  for (uint64_t l : lane) hash = (hash ^ l) * 0x9E3779B97F4A7C15u, hash ^= hash >> 32;
  return hash;
}

}  // namespace atlasd
