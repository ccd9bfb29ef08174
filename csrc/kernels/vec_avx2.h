// Sixteen lanes in two AVX2 registers; bytes are multiplied by maddubs, which adds pairs in saturating 16 bits.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sambay {
namespace {

struct VAvx2 {
    struct Ints { __m256i at[2]; };
    struct Floats { __m256 at[2]; };
    struct Bytes { __m256i at[2]; };

    static constexpr int kTile = 2, kPairTile = 0, kBoth = 1;
    static constexpr bool kExpands = false;  // products of whole bytes take twice as long

    static Ints ints(int32_t x) { return {{_mm256_set1_epi32(x), _mm256_set1_epi32(x)}}; }
    static Floats floats(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
    static Floats load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
    static void store(float* p, Floats x) { _mm256_storeu_ps(p, x.at[0]); _mm256_storeu_ps(p + 8, x.at[1]); }
    static Bytes bytes(const uint8_t* p) {
        auto* v = reinterpret_cast<const __m256i*>(p);
        return {{_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)}};
    }
    static void store(uint8_t* p, Bytes x) {
        auto* v = reinterpret_cast<__m256i*>(p);
        _mm256_storeu_si256(v, x.at[0]);
        _mm256_storeu_si256(v + 1, x.at[1]);
    }
    static Bytes low(Bytes x) {
        const __m256i mask = _mm256_set1_epi8(15);
        return {{_mm256_and_si256(x.at[0], mask), _mm256_and_si256(x.at[1], mask)}};
    }
    static Bytes high(Bytes x) {
        return low({{_mm256_srli_epi16(x.at[0], 4), _mm256_srli_epi16(x.at[1], 4)}});
    }
    static Bytes whole(Bytes x) { return x; }
    static Bytes six(Bytes both, bool upper, Bytes rest, int at) {  // where the loop is unrolled, the compiler chooses
        both = upper ? high(both) : low(both);
        for (int half = 0; half < 2; ++half) {
            __m256i more = rest.at[half];
            switch (at) {
                case 0: more = _mm256_slli_epi16(more, 4); break;
                case 2: more = _mm256_slli_epi16(more, 2); break;
                case 6: more = _mm256_srli_epi16(more, 2); break;
            }
            both.at[half] = _mm256_or_si256(both.at[half], _mm256_and_si256(more, _mm256_set1_epi8(48)));
        }
        return both;
    }
    static constexpr int32_t kZero8 = 128;

    using Four = __m256i;
    static Four four(const int8_t* p, int j) {
        int32_t four;
        std::memcpy(&four, p + 4 * j, 4);
        return _mm256_set1_epi32(four);
    }

    template <int Bits>
    static Ints dot(Ints sum, Bytes weights, Four act) {
        const __m256i ones = _mm256_set1_epi16(1);
        for (int half = 0; half < 2; ++half) {
            __m256i pairs;
            if constexpr (Bits < 8) {
                pairs = _mm256_maddubs_epi16(weights.at[half], act);  // at most 2 * 63 * 127: it never saturates
                sum.at[half] = _mm256_add_epi32(sum.at[half], _mm256_madd_epi16(pairs, ones));
            } else {
                // 2 * 255 * 127 would saturate: even and odd bytes apart, in 16 bits.
                const __m256i mask = _mm256_set1_epi16(255);
                const __m256i even = _mm256_and_si256(weights.at[half], mask), odd = _mm256_srli_epi16(weights.at[half], 8);
                const __m256i a_even = _mm256_srai_epi16(_mm256_slli_epi16(act, 8), 8), a_odd = _mm256_srai_epi16(act, 8);
                sum.at[half] = _mm256_add_epi32(sum.at[half], _mm256_madd_epi16(even, a_even));
                sum.at[half] = _mm256_add_epi32(sum.at[half], _mm256_madd_epi16(odd, a_odd));
            }
        }
        return sum;
    }

    static Floats to_floats(Ints x) { return {{_mm256_cvtepi32_ps(x.at[0]), _mm256_cvtepi32_ps(x.at[1])}}; }
    static Floats mul(Floats a, Floats b) { return {{_mm256_mul_ps(a.at[0], b.at[0]), _mm256_mul_ps(a.at[1], b.at[1])}}; }
    static Floats add(Floats a, Floats b) { return {{_mm256_add_ps(a.at[0], b.at[0]), _mm256_add_ps(a.at[1], b.at[1])}}; }
    static Floats fma(Floats a, Floats b, Floats c) {
        return {{_mm256_fmadd_ps(a.at[0], b.at[0], c.at[0]), _mm256_fmadd_ps(a.at[1], b.at[1], c.at[1])}};
    }
    static Floats sub(Floats a, Floats b) { return {{_mm256_sub_ps(a.at[0], b.at[0]), _mm256_sub_ps(a.at[1], b.at[1])}}; }
    static Floats max(Floats a, Floats b) { return {{_mm256_max_ps(a.at[0], b.at[0]), _mm256_max_ps(a.at[1], b.at[1])}}; }
    static Floats div(Floats a, Floats b) { return {{_mm256_div_ps(a.at[0], b.at[0]), _mm256_div_ps(a.at[1], b.at[1])}}; }
    static float sum(Floats x) {
        const __m256 v = _mm256_add_ps(x.at[0], x.at[1]);
        __m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        h = _mm_add_ps(h, _mm_movehl_ps(h, h));
        return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
    }
    static float most(Floats x) {
        const __m256 v = _mm256_max_ps(x.at[0], x.at[1]);
        __m128 h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        h = _mm_max_ps(h, _mm_movehl_ps(h, h));
        return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
    }

    // 2^(x log2 e): a polynomial for the fraction, the exponent field for the rest; relative error below 1e-6.
    static Floats exp(Floats x) {
        Floats r;
        for (int i = 0; i < 2; ++i) {
            const __m256 high = _mm256_set1_ps(1.44269504f), low = _mm256_set1_ps(1.92596299e-8f);
            // In this order of arguments a NaN stays one.
            const __m256 v = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(_mm256_set1_ps(-87.3f), x.at[i]));
            const __m256 whole = _mm256_round_ps(_mm256_mul_ps(v, high), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
            const __m256 f = _mm256_fmadd_ps(v, low, _mm256_fmsub_ps(v, high, whole));
            __m256 p = _mm256_set1_ps(1.5403530e-4f);
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.3333558e-3f));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.6181291e-3f));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.5504109e-2f));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.4022651e-1f));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.9314718e-1f));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
            const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
            // What is below the smallest normal number is 0, as a masked score must be.
            const __m256 alive = _mm256_cmp_ps(x.at[i], _mm256_set1_ps(-87.3f), _CMP_NLE_UQ);
            r.at[i] = _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(bits)), alive);
        }
        return r;
    }

    static Floats sums(const Floats* x) {
        float s[16];
        for (int i = 0; i < 16; ++i) s[i] = sum(x[i]);
        return load(s);
    }

    static Floats load(const uint16_t* p) {
        auto* v = reinterpret_cast<const __m128i*>(p);
        Floats r;
        for (int i = 0; i < 2; ++i)
            r.at[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(v + i)), 16));
        return r;
    }

    static Floats halves(const uint8_t* p) {
        auto* v = reinterpret_cast<const __m128i*>(p);
        return {{_mm256_cvtph_ps(_mm_loadu_si128(v)), _mm256_cvtph_ps(_mm_loadu_si128(v + 1))}};
    }

    static float most32(const float* x) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        __m256 top = _mm256_setzero_ps(), none = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            const __m256 v = _mm256_loadu_ps(x + 8 * i);
            top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v));
            none = _mm256_or_ps(none, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        }
        __m128 m = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
        m = _mm_max_ps(m, _mm_movehl_ps(m, m));
        return _mm256_movemask_ps(none) ? __builtin_nanf("") : _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    }
    static int32_t codes32(const float* x, float inverse, int8_t* q) {
        __m256i i32[4];
        for (int i = 0; i < 4; ++i) i32[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse)));
        const __m256i total = _mm256_add_epi32(_mm256_add_epi32(i32[0], i32[1]), _mm256_add_epi32(i32[2], i32[3]));
        __m128i t = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
        // The packs work within halves of the register; the permutation puts the order right.
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i32[0], i32[1]), _mm256_packs_epi32(i32[2], i32[3]));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(packed, order));
        return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
    }

    static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
};

}  // namespace
}  // namespace sambay
