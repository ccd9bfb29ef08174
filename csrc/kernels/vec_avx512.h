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
    static constexpr int kTile = 8, kPairTile = 6;

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

    static float quantise32(const float* x, int8_t* q, int32_t* sum) {
        const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
        const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        const __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
        const __m512i i = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), j = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
        *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(i, j));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(i));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtepi32_epi8(j));
        const __mmask16 none = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q);
        return none ? __builtin_nanf("") : most / 127.0f;
    }

    static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
};

}  // namespace
}  // namespace sambay
