// The tile registers of Intel AMX: eight tiles, of which four hold sums.
#pragma once

#include <cstdint>

namespace sambay {
namespace {

// Holds the tiles while it lives, with shapes that the constructor sets: C (height x 16 int32) are tiles 0 to 3, A
// (height x k signed bytes) 4 and 5, B (k/4 x 16 lanes of four signed bytes, four consecutive k of a column) 6 and 7.
//
// The compilers' own functions are no use here: GCC's want the number of a tile as a literal and, since they do not say
// that they read memory, GCC 12 drops the stores before them.
class Tiles {
  public:
    explicit Tiles(int height, int k = 32) {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes[16] = {64, 64, 64, 64, 0, 0, 64, 64};  // of a row
            uint8_t rows[16] = {};
        } shapes;
        static_assert(sizeof shapes == 64);
        shapes.bytes[4] = shapes.bytes[5] = uint16_t(k);
        for (int i = 0; i < 8; ++i) shapes.rows[i] = uint8_t(i < 6 ? height : k / 4);
        asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
    }
    ~Tiles() { asm volatile("tilerelease" : : : "memory"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    template <int To>
    void zero() { asm volatile("tilezero %%tmm%c0" : : "i"(To)); }

    // The rows of a tile lie `stride` bytes apart.
    template <int To>
    void load(const void* from, int64_t stride) {
        asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(To), "r"(from), "r"(stride) : "memory");
    }
    template <int From>
    void store(void* to, int64_t stride) {
        asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(From), "r"(to), "r"(stride) : "memory");
    }

    // C += A B.
    template <int C, int A, int B>
    void multiply() { asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B)); }
};

}  // namespace
}  // namespace sambay
