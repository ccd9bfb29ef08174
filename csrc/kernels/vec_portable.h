// Vectors of sixteen lanes in plain C++: the specification of the other vec_*.h, and the path of unknown machines.
//
// Every vec header defines a struct `V` with the same types and functions; kernels are templates over it.
// A panel of a quantised matrix is sixteen rows wide, hence sixteen 32-bit lanes; a `Bytes` is 64 bytes: in
// lane r the four consecutive values k..k+3 of row r.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace sambay {
namespace {

struct VPortable {
    struct Ints { int32_t at[16]; };
    struct Floats { float at[16]; };
    struct Bytes { uint8_t at[64]; };

    // Rows of activations that a kernel keeps in registers at once: with one panel, with two (0: never two), and with one
    // of which it multiplies both nibbles at a time.
    static constexpr int kTile = 2, kPairTile = 0, kBoth = 1;
    // Whether nested scales go into the codes of many rows (linear_nested.h): then there are `expander` and `expand`.
    static constexpr bool kExpands = false;

    static Ints ints(int32_t x) { Ints r; for (auto& v : r.at) v = x; return r; }
    static Floats floats(float x) { Floats r; for (auto& v : r.at) v = x; return r; }
    static Floats load(const float* p) { Floats r; std::memcpy(r.at, p, 64); return r; }
    static void store(float* p, Floats x) { std::memcpy(p, x.at, 64); }
    static Bytes bytes(const uint8_t* p) { Bytes r; std::memcpy(r.at, p, 64); return r; }
    static void store(uint8_t* p, Bytes x) { std::memcpy(p, x.at, 64); }
    static Bytes low(Bytes x) { for (auto& v : x.at) v &= 15; return x; }
    static Bytes high(Bytes x) { for (auto& v : x.at) v >>= 4; return x; }
    // Codes of 6 bits: four in a nibble, and two in `rest`, from bit `at` on.
    static Bytes six(Bytes both, bool upper, Bytes rest, int at) {
        for (int i = 0; i < 64; ++i) both.at[i] = uint8_t((upper ? both.at[i] >> 4 : both.at[i] & 15) | ((rest.at[i] >> at & 3) << 4));
        return both;
    }
    // Codes of 8 bits as `dot` takes them, and what each is then too great by.
    static Bytes whole(Bytes x) { return x; }
    static constexpr int32_t kZero8 = 128;

    // Four signed activations, the same for every lane: the j-th four at p, which has a multiple of sixteen.
    struct Four { int8_t at[4]; };
    static Four four(const int8_t* p, int j) { Four r; std::memcpy(r.at, p + 4 * j, 4); return r; }

    // sum += four weights, from `low`, `high`, `six` or `whole`, times the four activations, in every lane.
    template <int Bits>
    static Ints dot(Ints sum, Bytes weights, Four a) {
        for (int lane = 0; lane < 16; ++lane)
            for (int i = 0; i < 4; ++i) sum.at[lane] += int32_t(weights.at[4 * lane + i]) * a.at[i];
        return sum;
    }

    static Floats to_floats(Ints x) { Floats r; for (int i = 0; i < 16; ++i) r.at[i] = float(x.at[i]); return r; }
    static Floats mul(Floats a, Floats b) { for (int i = 0; i < 16; ++i) a.at[i] *= b.at[i]; return a; }
    static Floats add(Floats a, Floats b) { for (int i = 0; i < 16; ++i) a.at[i] += b.at[i]; return a; }
    // a * b + c. Whether it rounds once or twice is the machine's choice, and not that of the compiler from place to place.
#ifdef __FP_FAST_FMAF
    static Floats fma(Floats a, Floats b, Floats c) { for (int i = 0; i < 16; ++i) c.at[i] = std::fma(a.at[i], b.at[i], c.at[i]); return c; }
#else
    static Floats fma(Floats a, Floats b, Floats c) { for (int i = 0; i < 16; ++i) c.at[i] += a.at[i] * b.at[i]; return c; }
#endif

    static Floats sub(Floats a, Floats b) { for (int i = 0; i < 16; ++i) a.at[i] -= b.at[i]; return a; }
    static Floats max(Floats a, Floats b) { for (int i = 0; i < 16; ++i) a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i]; return a; }
    static Floats div(Floats a, Floats b) { for (int i = 0; i < 16; ++i) a.at[i] /= b.at[i]; return a; }
    static Floats exp(Floats x) { for (auto& v : x.at) v = std::exp(v); return x; }
    static float sum(Floats x) { float s = 0; for (float v : x.at) s += v; return s; }
    static float most(Floats x) { float m = x.at[0]; for (float v : x.at) m = v > m ? v : m; return m; }

    // Lane i of the result is the sum of the lanes of x[i].
    static Floats sums(const Floats* x) { Floats r; for (int i = 0; i < 16; ++i) r.at[i] = sum(x[i]); return r; }

    // Sixteen bfloat16 values.
    static Floats load(const uint16_t* p) {
        Floats r;
        for (int i = 0; i < 16; ++i) {
            const uint32_t bits = uint32_t(p[i]) << 16;
            std::memcpy(&r.at[i], &bits, 4);
        }
        return r;
    }

    // Sixteen float16 values.
    static Floats halves(const uint8_t* p) {
        Floats r;
        for (int i = 0; i < 16; ++i) {
            uint16_t h;
            std::memcpy(&h, p + 2 * i, 2);
            r.at[i] = half(h);
        }
        return r;
    }

    static float half(uint16_t h) {
        const uint32_t sign = uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
        uint32_t bits;
        if (exponent == 31) bits = sign | 0x7f800000u | (fraction << 13);
        else if (exponent) bits = sign | ((exponent + 112) << 23) | (fraction << 13);
        else {
            float value = std::ldexp(float(fraction), -24);
            return sign ? -value : value;
        }
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }

    // Thirty-two floats to signed bytes: the largest magnitude, or a NaN if there is one; the bytes round(x * inverse), 0 for
    // what is no number, and their sum.
    static float most32(const float* x) {
        float most = 0;
        for (int i = 0; i < 32; ++i) {
            const float size = std::fabs(x[i]);
            if (size > most || size != size) most = size;
            if (most != most) break;
        }
        return most;
    }
    static int32_t codes32(const float* x, float inverse, int8_t* q) {
        int32_t total = 0;
        for (int i = 0; i < 32; ++i) {
            const float steps = x[i] * inverse;
            q[i] = steps == steps ? int8_t(std::nearbyint(steps)) : int8_t(0);
            total += q[i];
        }
        return total;
    }

    static void prefetch(const void*) {}
};

}  // namespace
}  // namespace sambay
