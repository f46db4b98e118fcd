// AMX's instructions on a processor without them: each faults, and is then decoded and done on emulated registers. So what
// a compiler has made of the kernel's real path is seen to run: operands, strides, configuration, and what is written in
// time for a tile to read it.
#include <csignal>
#include <cstdlib>
#include <initializer_list>
#include <ucontext.h>

#include "tile.h"

namespace {

constexpr int kRegisters[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// A VEX instruction of three bytes of prefix, its opcode, and an operand in memory or a register.
struct Instruction {
  int prefix, opcode, reg, rm, second;
  bool in_memory;
  long address, step, length = 5;  // step: the index register, scaled

  Instruction(const greg_t* registers) {
    const uint8_t* at = (const uint8_t*)registers[REG_RIP];
    if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || at[2] & 0x84) std::abort();
    int high_index = at[1] & 0x40 ? 0 : 8, high_base = at[1] & 0x20 ? 0 : 8, mode = at[4] >> 6;
    prefix = at[2] & 3, second = ~(at[2] >> 3) & 7, opcode = at[3], reg = at[4] >> 3 & 7, rm = at[4] & 7;
    in_memory = mode != 3, address = step = 0;
    if (!in_memory) return;
    int base = rm;
    if (rm == 4) {
      int index = (at[5] >> 3 & 7) + high_index;
      base = at[5] & 7, length = 6;
      if (index != 4) step = registers[kRegisters[index]] << (at[5] >> 6);
    }
    bool far = mode == 2 || (mode == 0 && base == 5);
    if (far) address = *(const int32_t*)(at + length);
    if (mode == 1) address = (int8_t)at[length];
    length += far ? 4 : mode == 1;
    if (mode != 0 || base != 5)
      address += registers[kRegisters[base + high_base]];
    else if (rm == 5)
      address += registers[REG_RIP] + length;
  }

  bool is(int wanted_prefix, int wanted_opcode, bool memory) const {
    return prefix == wanted_prefix && opcode == wanted_opcode && in_memory == memory;
  }
};

void run(int, siginfo_t*, void* context) {
  constexpr int kNone = 0, kF3 = 2, kF2 = 3;
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  dropkey::TileRegisters& tiles = dropkey::tile_registers();
  Instruction now(registers);
  if (now.is(kNone, 0x49, true))
    tiles.configure(*(const dropkey::TileShapes*)(now.address + now.step));
  else if (now.is(kNone, 0x49, false))
    tiles.release();
  else if (now.is(kF2, 0x49, false))
    tiles.zero(now.reg);
  else if (now.is(kF2, 0x4b, true))
    tiles.load(now.reg, (const char*)now.address, now.step);
  else if (now.is(kF3, 0x4b, true))
    tiles.store(now.reg, (char*)now.address, now.step);
  else if (now.is(kF3, 0x5c, false))
    tiles.multiply(now.reg, now.rm, now.second);
  else
    std::abort();
  registers[REG_RIP] += now.length;
}

struct sigaction before;

}  // namespace

extern "C" void catch_instructions() {
  struct sigaction action = {};
  action.sa_sigaction = run, action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, &before);
}

extern "C" void leave_instructions() { sigaction(SIGILL, &before, nullptr); }
