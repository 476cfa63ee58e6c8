// Tile instructions for a processor without AMX: each one raises SIGILL, is decoded from its bytes
// (Intel's manual, VEX.128.0F38: 49, 4B, 5C, 5E) and run on the scalar model of tiles.h. So the
// real build's instructions are tested, with the registers, addresses and stores that the
// compiler made of them. Preloaded by test_amx.py; says at exit how many it ran.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <ucontext.h>

#include <atomic>

#define ATLASD_EMULATE_TILES
#include "tiles.h"

namespace {

std::atomic<long> ran{0};

[[noreturn]] void give_up(const char* why) {
  fprintf(stderr, "trapped tiles: %s\n", why);
  abort();
}

// What the ModRM byte says about memory.
struct Operand {
  uint64_t start = 0, stride = 0;
  const uint8_t* end = nullptr;   // of the instruction
};

uint64_t general(const greg_t* registers, int number) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(registers[order[number]]);
}

// vex: the byte with the inverted high bits of reg, index and base.
Operand memory_operand(const greg_t* registers, uint8_t vex, const uint8_t* modrm) {
  const int mode = *modrm >> 6, rm = *modrm & 7;
  const int high_index = vex & 0x40 ? 0 : 8, high_base = vex & 0x20 ? 0 : 8;
  const uint8_t* p = modrm + 1;
  Operand operand;
  bool from_instruction = mode == 0 && rm == 5, no_base = false;
  if (rm == 4) {
    const int index = (*p >> 3 & 7) + high_index, base = *p & 7;
    if (index != 4) operand.stride = general(registers, index) << (*p >> 6);
    no_base = mode == 0 && base == 5;
    if (!no_base) operand.start = general(registers, base + high_base);
    p++;
  } else if (!from_instruction) {
    operand.start = general(registers, rm + high_base);
  }
  if (mode == 1) {
    operand.start += static_cast<int64_t>(static_cast<int8_t>(*p++));
  } else if (mode == 2 || from_instruction || no_base) {
    int32_t displacement;
    memcpy(&displacement, p, 4);
    p += 4;
    operand.start += static_cast<int64_t>(displacement);
  }
  operand.end = p;
  if (from_instruction) operand.start += reinterpret_cast<uint64_t>(p);
  return operand;
}

void run_tile_instruction(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const uint8_t* at = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  // C4, (R X B mapping), (W vvvv L prefix), opcode, ModRM
  if (at[0] != 0xC4 || (at[1] & 0x1F) != 2 || (at[2] & 0x84) != 0)
    give_up("an instruction that is none of AMX's");
  const int prefix = at[2] & 3, third = ~at[2] >> 3 & 15;   // prefix: none, 66, F3, F2
  const uint8_t opcode = at[3];
  const bool memory = at[4] >> 6 != 3;
  const int reg = at[4] >> 3 & 7, rm = at[4] & 7;
  const Operand operand = memory ? memory_operand(registers, at[1], at + 4) : Operand{};
  void* place = reinterpret_cast<void*>(operand.start);
  const long stride = static_cast<long>(operand.stride);
  if (opcode == 0x49 && prefix == 0 && memory)
    tile_shapes(static_cast<const TileShapes*>(place));
  else if (opcode == 0x49 && prefix == 0 && at[4] == 0xC0)
    tile_release();
  else if (opcode == 0x49 && prefix == 3 && !memory)
    tile_zero(reg);
  else if (opcode == 0x4B && prefix == 3 && memory)
    tile_load(reg, place, stride);
  else if (opcode == 0x4B && prefix == 2 && memory)
    tile_store(reg, place, stride);
  else if (opcode == 0x5C && prefix == 2 && !memory)
    tile_bf16(reg, rm, third);
  else if (opcode == 0x5E && prefix == 2 && !memory)
    tile_signed_unsigned(reg, rm, third);
  else
    give_up("a tile instruction that the kernels are not known to use");
  ran++;
  registers[REG_RIP] = static_cast<greg_t>(
      reinterpret_cast<uint64_t>(memory ? operand.end : at + 5));
}

using Sigaction = int (*)(int, const struct sigaction*, struct sigaction*);
Sigaction real_sigaction() {
  static const Sigaction real = reinterpret_cast<Sigaction>(dlsym(RTLD_NEXT, "sigaction"));
  return real;
}

__attribute__((constructor)) void install() {
  struct sigaction action = {};
  action.sa_sigaction = run_tile_instruction;
  action.sa_flags = SA_SIGINFO;
  real_sigaction()(SIGILL, &action, nullptr);
}

__attribute__((destructor)) void report() {
  fprintf(stderr, "tile instructions run: %ld\n", ran.load());
}

}  // namespace

// The library's own check for refused instructions, and Python's, leave the handler in place.
extern "C" int sigaction(int number, const struct sigaction* action, struct sigaction* before) {
  if (number == SIGILL) {
    if (before) *before = {};
    return 0;
  }
  return real_sigaction()(number, action, before);
}
