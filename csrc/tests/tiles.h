// Tiles for a CPU that has none. Their instructions are illegal there, and Linux tells the process so: the handler reads
// the very bytes that isa_amx.cpp was compiled to, does what Intel's manual says, and goes on behind them. Whatever would
// be an exception on a CPU with tiles (shapes that do not fit, a reserved field) ends the program.
#pragma once

namespace sambay {

// Whether the instructions of AMX tiles are emulated from now on: on a CPU of this architecture, under Linux. Threads of
// the pool have signals blocked, and must say that they want this one.
inline bool emulate_tiles();
inline void want_emulation();

}  // namespace sambay

#if defined(__linux__) && defined(__x86_64__)

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace sambay {

class EmulatedTiles {
  public:
    static void handle(int, siginfo_t*, void* context) {
        static constinit thread_local EmulatedTiles own;
        greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
        registers[REG_RIP] += own.step(reinterpret_cast<const uint8_t*>(registers[REG_RIP]), registers);
    }

  private:
    static constexpr int kTiles = 8, kRows = 16, kBytes = 64;

    bool configured_ = false;
    int rows_[kTiles] = {}, bytes_[kTiles] = {};  // of each tile, and of its rows
    uint8_t tiles_[kTiles][kRows][kBytes] = {};

    [[noreturn]] static void stop(const uint8_t* at, const char* why) {
        std::fprintf(stderr, "emulated tiles: %s, at %02x %02x %02x %02x %02x\n", why, at[0], at[1], at[2], at[3], at[4]);
        _exit(1);  // this is a signal handler
    }

    // Does the instruction, and returns its length: a VEX prefix of three bytes, an opcode, and where the operands are.
    int step(const uint8_t* at, const greg_t* registers) {
        const auto need = [at](bool fine, const char* why) { if (!fine) stop(at, why); };
        static constexpr int kOrder[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                         REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
        need(at[0] == 0xc4 && (at[1] & 31) == 2 && (at[2] & 0x84) == 0, "an instruction that is illegal for another reason");
        const int more_reg = ~at[1] >> 4 & 8, more_index = ~at[1] >> 3 & 8, more_base = ~at[1] >> 2 & 8;
        const int third = 15 - (at[2] >> 3 & 15), prefix = at[2] & 3, opcode = at[3];
        const int mode = at[4] >> 6, reg = (at[4] >> 3 & 7) | more_reg, rm = (at[4] & 7) | more_base;
        int length = 5;
        uint8_t* address = nullptr;
        int64_t stride = 0;
        const bool extended = mode != 3 && (at[4] & 7) == 4;
        bool indexed = false;
        if (mode != 3) {
            int base = rm;
            if (extended) {
                const int index = (at[5] >> 3 & 7) | more_index;
                base = (at[5] & 7) | more_base;
                indexed = index != 4;
                if (indexed) stride = int64_t(uint64_t(registers[kOrder[index]]) << (at[5] >> 6));
                length = 6;
            }
            need(mode != 0 || (base & 7) != 5, "an address without a base");
            int32_t offset = 0;
            if (mode == 1) offset = int8_t(at[length++]);
            if (mode == 2) std::memcpy(&offset, at + length, 4), length += 4;
            address = reinterpret_cast<uint8_t*>(registers[kOrder[base]] + offset);
        }
        if (opcode == 0x49 && prefix == 0 && mode != 3) {
            need(reg == 0 && !indexed, "a form of ldtilecfg that is not used here");
            configure(at, address);
            return length;
        }
        need(configured_, "tiles without a configuration");
        if (opcode == 0x49 && prefix == 0) {
            need(at[4] == 0xc0, "a reserved form of tilerelease");
            configured_ = false;
            return length;
        }
        need(reg < kTiles && third < kTiles, "a tile that there is not");
        if (opcode == 0x49 && prefix == 3 && mode == 3 && rm == 0) std::memset(tiles_[reg], 0, sizeof tiles_[reg]);
        else if (opcode == 0x4b && prefix == 3 && extended) {  // tileloadd; what is beyond the shape becomes zero
            std::memset(tiles_[reg], 0, sizeof tiles_[reg]);
            for (int r = 0; r < rows_[reg]; ++r) std::memcpy(tiles_[reg][r], address + r * stride, size_t(bytes_[reg]));
        } else if (opcode == 0x4b && prefix == 2 && extended) {  // tilestored
            for (int r = 0; r < rows_[reg]; ++r) std::memcpy(address + r * stride, tiles_[reg][r], size_t(bytes_[reg]));
        } else if (opcode == 0x5e && prefix == 3 && mode == 3) {
            need(rm < kTiles && reg != rm && reg != third && rm != third, "tdpbssd needs three tiles");
            need(rows_[reg] == rows_[rm] && bytes_[reg] == bytes_[third] && bytes_[rm] == 4 * rows_[third], "shapes that do not fit");
            multiply(reg, rm, third);
        } else stop(at, "an instruction that is not used here");
        return length;
    }

    void configure(const uint8_t* at, const uint8_t* from) {
        if (from[0] != 1 || from[1] != 0) stop(at, "another palette than 1, or rows to resume at");
        for (int i = 2; i < 16; ++i)
            if (from[i]) stop(at, "a reserved byte of the configuration");
        for (int i = 0; i < 16; ++i) {
            uint16_t bytes;
            std::memcpy(&bytes, from + 16 + 2 * i, 2);
            const int rows = from[48 + i];
            if (i >= kTiles ? bytes || rows : bytes > kBytes || rows > kRows || !bytes != !rows) stop(at, "an impossible shape");
            if (i < kTiles) rows_[i] = rows, bytes_[i] = bytes;
        }
        std::memset(tiles_, 0, sizeof tiles_);
        configured_ = true;
    }

    // Signed bytes; the sums wrap around.
    void multiply(int c, int a, int b) {
        for (int r = 0; r < rows_[c]; ++r)
            for (int n = 0; n < bytes_[c] / 4; ++n) {
                uint32_t sum;
                std::memcpy(&sum, tiles_[c][r] + 4 * n, 4);
                for (int k = 0; k < bytes_[a]; ++k)
                    sum += uint32_t(int8_t(tiles_[a][r][k]) * int8_t(tiles_[b][k / 4][4 * n + k % 4]));
                std::memcpy(tiles_[c][r] + 4 * n, &sum, 4);
            }
    }
};

inline bool emulate_tiles() {
    struct sigaction action = {};
    action.sa_sigaction = EmulatedTiles::handle;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGILL, &action, nullptr) == 0;
}

inline void want_emulation() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGILL);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace sambay

#else

inline bool sambay::emulate_tiles() { return false; }
inline void sambay::want_emulation() {}

#endif
