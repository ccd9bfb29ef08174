// The tile registers of Intel AMX, and the same in plain C++ for machines without them.
//
// An object holds eight tiles while it lives, of shapes that the constructor sets: C (height x 16 int32) are tiles 0 to
// 3, A (height x 32 signed bytes) 4 and 5, B (8 x 16 groups of four signed bytes, a group being four consecutive k) 6
// and 7. C += A B in integers that wrap around.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sambay {
namespace {

// What `ldtilecfg` reads.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 32, 32, 64, 64};  // of a row
    uint8_t rows[16] = {};

    explicit TileShapes(int height) {
        for (int i = 0; i < 6; ++i) rows[i] = uint8_t(height);
        rows[6] = rows[7] = 8;
    }
};
static_assert(sizeof(TileShapes) == 64);

#ifdef __AMX_INT8__
// The compilers' own functions are no use here: GCC's want the number of a tile as a literal, and as they do not say
// that they read memory, GCC 12 drops the stores before them.
class HardwareTiles {
  public:
    explicit HardwareTiles(int height) {
        const TileShapes shapes(height);
        asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
    }
    ~HardwareTiles() { asm volatile("tilerelease" : : : "memory"); }
    HardwareTiles(const HardwareTiles&) = delete;
    HardwareTiles& operator=(const HardwareTiles&) = delete;

    template <int To>
    void zero() { asm volatile("tilezero %%tmm%c0" : : "i"(To)); }

    // Rows of a tile lie `stride` bytes apart.
    template <int To>
    void load(const void* from, int64_t stride) {
        asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(To), "r"(from), "r"(stride) : "memory");
    }
    template <int From>
    void store(void* to, int64_t stride) {
        asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(From), "r"(to), "r"(stride) : "memory");
    }
    template <int C, int A, int B>
    void dot() { asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B)); }
};
#endif

// For tests. It stops where the hardware would.
class SoftwareTiles {
  public:
    explicit SoftwareTiles(int height) : shapes_(height) {
        for (int i = 0; i < 8; ++i) require(shapes_.rows[i] >= 1 && shapes_.rows[i] <= 16 && shapes_.bytes[i] <= 64, "a shape");
        std::memset(tiles_, 0, sizeof tiles_);
    }
    SoftwareTiles(const SoftwareTiles&) = delete;
    SoftwareTiles& operator=(const SoftwareTiles&) = delete;

    template <int To>
    void zero() { std::memset(tiles_[To], 0, sizeof tiles_[To]); }

    template <int To>
    void load(const void* from, int64_t stride) {
        zero<To>();  // what lies beyond the shape becomes zero
        for (int r = 0; r < shapes_.rows[To]; ++r)
            std::memcpy(tiles_[To][r], static_cast<const uint8_t*>(from) + r * stride, shapes_.bytes[To]);
    }
    template <int From>
    void store(void* to, int64_t stride) {
        for (int r = 0; r < shapes_.rows[From]; ++r)
            std::memcpy(static_cast<uint8_t*>(to) + r * stride, tiles_[From][r], shapes_.bytes[From]);
    }
    template <int C, int A, int B>
    void dot() {
        require(C != A && C != B && A != B, "three tiles");
        require(shapes_.rows[C] == shapes_.rows[A] && shapes_.bytes[C] == shapes_.bytes[B] &&
                shapes_.bytes[A] == 4 * shapes_.rows[B], "shapes that fit");
        for (int r = 0; r < shapes_.rows[C]; ++r)
            for (int n = 0; n < shapes_.bytes[C] / 4; ++n) {
                uint32_t sum;  // unsigned, since it may wrap around
                std::memcpy(&sum, tiles_[C][r] + 4 * n, 4);
                for (int k = 0; k < shapes_.bytes[A]; ++k)
                    sum += uint32_t(int32_t(int8_t(tiles_[A][r][k])) * int8_t(tiles_[B][k / 4][4 * n + k % 4]));
                std::memcpy(tiles_[C][r] + 4 * n, &sum, 4);
            }
    }

  private:
    static void require(bool fine, const char* what) {
        if (fine) return;
        std::fprintf(stderr, "tiles: this needs %s\n", what);
        std::abort();
    }

    TileShapes shapes_;
    alignas(64) uint8_t tiles_[8][16][64];
};

}  // namespace
}  // namespace sambay
