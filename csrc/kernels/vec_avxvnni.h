// AVX2 with the VNNI instructions for 256 bits, as laptops have them that have no AVX-512: four products of bytes and their
// sum in one instruction, whatever the bytes are.
#pragma once

#include "vec_avx2.h"

namespace sambay {
namespace {

struct VAvxVnni : VAvx2 {
    // A sum takes two of sixteen registers. Expanded weights need no second one, and twelve chains keep two multipliers busy.
    static constexpr int kTile = 4, kExpandedTile = 6;
    static constexpr bool kExpands = true;

    template <int Bits>
    static Ints dot(Ints sum, Bytes weights, Four act) {
        for (int half = 0; half < 2; ++half) sum.at[half] = _mm256_dpbusd_avx_epi32(sum.at[half], weights.at[half], act);
        return sum;
    }

    // As in vec_avx512.h: (u - 8) * m + 128 in every byte, of two bytes u at once.
    struct Expander { __m256i times[2], plus[2]; };
    static Expander expander(Floats m) {
        Expander e;
        for (int half = 0; half < 2; ++half) {
            const __m256i wide = _mm256_cvtps_epi32(m.at[half]);
            e.times[half] = _mm256_blend_epi16(wide, _mm256_slli_epi32(wide, 16), 0xaa);
            e.plus[half] = _mm256_sub_epi16(_mm256_set1_epi16(int16_t(0x8080)),
                                            _mm256_mullo_epi16(e.times[half], _mm256_set1_epi16(0x0808)));
        }
        return e;
    }
    static Bytes expand(Bytes u, Expander e) {
        for (int half = 0; half < 2; ++half)
            u.at[half] = _mm256_add_epi16(_mm256_mullo_epi16(u.at[half], e.times[half]), e.plus[half]);
        return u;
    }
};

}  // namespace
}  // namespace sambay
