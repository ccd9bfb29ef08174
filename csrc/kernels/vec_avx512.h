// Sixteen lanes in one AVX-512 register; VNNI multiplies bytes.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sambay {
namespace {

struct VAvx512 {
    using Ints = __m512i;
    using Floats = __m512;
    using Bytes = __m512i;

    // 8 sums, 8 accumulators, and room for weights, scales and masks among 32 registers; or 12 and 12 of two panels,
    // which load an activation once for both.
    static constexpr int kTile = 8, kPairTile = 6, kBoth = 2;

    static Ints ints(int32_t x) { return _mm512_set1_epi32(x); }
    static Floats floats(float x) { return _mm512_set1_ps(x); }
    static Floats load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
    static Bytes bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static void store(uint8_t* p, Bytes x) { _mm512_storeu_si512(p, x); }
    static Bytes low(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
    static Bytes high(Bytes x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
    static Bytes whole(Bytes x) { return x; }
    static Bytes six(Bytes both, bool upper, Bytes rest, int at) {  // where the loop is unrolled, the compiler chooses
        switch (at) {
            case 0: rest = _mm512_slli_epi16(rest, 4); break;
            case 2: rest = _mm512_slli_epi16(rest, 2); break;
            case 6: rest = _mm512_srli_epi16(rest, 2); break;
        }
        return _mm512_or_si512(upper ? high(both) : low(both), _mm512_and_si512(rest, _mm512_set1_epi8(48)));
    }
    static constexpr int32_t kZero8 = 128;

    using Four = __m512i;
    static Four four(const int8_t* p, int j) {
        int32_t four;
        std::memcpy(&four, p + 4 * j, 4);
        return _mm512_set1_epi32(four);
    }

    template <int Bits>
    static Ints dot(Ints sum, Bytes weights, Four a) { return _mm512_dpbusd_epi32(sum, weights, a); }

    static Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
    static Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
    static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
    static Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
    static Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
    static Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
    static Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
    static float sum(Floats x) { return _mm512_reduce_add_ps(x); }
    static float most(Floats x) { return _mm512_reduce_max_ps(x); }

    // 2^(x log2 e): a polynomial for the fraction, the exponent field for the rest; relative error below 1e-6.
    static Floats exp(Floats x) {
        const __m512 high = _mm512_set1_ps(1.44269504f), low = _mm512_set1_ps(1.92596299e-8f);
        x = _mm512_max_ps(_mm512_set1_ps(-1e4f), x);  // minus infinity stays out of the differences, a NaN stays in
        const __m512 whole = _mm512_roundscale_ps(_mm512_mul_ps(x, high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        const __m512 f = _mm512_fmadd_ps(x, low, _mm512_fmsub_ps(x, high, whole));
        __m512 p = _mm512_set1_ps(1.5403530e-4f);
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
        return _mm512_scalef_ps(p, whole);
    }

    // Lane i of the result is the sum of the lanes of x[i]: a transposition whose steps add.
    static Floats sums(const Floats* x) {
        __m512 a[8], b[4], c[2];
        for (int i = 0; i < 8; ++i)
            a[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
        for (int i = 0; i < 4; ++i) {
            const __m512d p = _mm512_castps_pd(a[2 * i]), q = _mm512_castps_pd(a[2 * i + 1]);
            b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)), _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
        }
        for (int i = 0; i < 2; ++i)
            c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88), _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
        return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
    }

    static Floats load(const uint16_t* p) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }

    static Floats halves(const uint8_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }

    static float most32(const float* x) {
        const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
        const __mmask16 none = _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);
        return none ? __builtin_nanf("") : _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    }
    static int32_t codes32(const float* x, float inverse, int8_t* q) {
        const __m512 steps = _mm512_set1_ps(inverse);
        const __m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), steps));
        const __m512i j = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), steps));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(i));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtepi32_epi8(j));
        return _mm512_reduce_add_epi32(_mm512_add_epi32(i, j));
    }

    // The factors of a group of nested scales (linear_nested.h): a table takes the lower four bits of a lane.
    static Floats factors(const uint8_t* header, int group) {
        __m512i sizes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(header + 64 + group % 4 * 16)));
        if (group >= 4) sizes = _mm512_srli_epi32(sizes, 4);
        const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512i signs = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(header + 32)));
        const __m512i sign = _mm512_and_si512(_mm512_slli_epi32(signs, unsigned(31 - group)), _mm512_set1_epi32(INT32_MIN));
        return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(_mm512_permutexvar_ps(sizes, table)), sign));
    }

    // (u - 8) * m + 128 in every byte, of two bytes u at once: the products of both with m do not meet, modulo 2^16.
    static constexpr bool kExpands = true;
    struct Expander { __m512i times, plus; };
    static Expander expander(Floats m) {
        const __m512i wide = _mm512_cvtps_epi32(m);
        const __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, wide, _mm512_slli_epi32(wide, 16));
        return {both, _mm512_sub_epi16(_mm512_set1_epi16(int16_t(0x8080)), _mm512_mullo_epi16(both, _mm512_set1_epi16(0x0808)))};
    }
    static Bytes expand(Bytes u, Expander e) { return _mm512_add_epi16(_mm512_mullo_epi16(u, e.times), e.plus); }

    static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
};

}  // namespace
}  // namespace sambay
