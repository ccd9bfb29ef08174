// Sixteen lanes in four 128-bit registers of 64-bit Arm; the dot product of Armv8.2 multiplies signed bytes.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace sambay {
namespace {

struct VNeon {
    struct Ints { int32x4_t at[4]; };
    struct Floats { float32x4_t at[4]; };
    struct Bytes { uint8x16_t at[4]; };

    // 16 sums, 4 registers of weights and 4 of activations among 32; the accumulators wait on the stack, a load and a
    // store in eight products. Two panels would share activations, but load as many weights for half the rows.
    static constexpr int kTile = 4, kPairTile = 0, kBoth = 2;
    static constexpr bool kExpands = false;

    static Ints ints(int32_t x) {
        const int32x4_t v = vdupq_n_s32(x);
        return {{v, v, v, v}};
    }
    static Floats floats(float x) {
        const float32x4_t v = vdupq_n_f32(x);
        return {{v, v, v, v}};
    }
    static Floats load(const float* p) { return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
    static void store(float* p, Floats x) {
        for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.at[i]);
    }
    static Bytes bytes(const uint8_t* p) { return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}}; }
    static void store(uint8_t* p, Bytes x) {
        for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, x.at[i]);
    }
    static Bytes low(Bytes x) {
        for (auto& v : x.at) v = vandq_u8(v, vdupq_n_u8(15));
        return x;
    }
    static Bytes high(Bytes x) {
        for (auto& v : x.at) v = vshrq_n_u8(v, 4);
        return x;
    }

    static Bytes six(Bytes both, bool upper, Bytes rest, int at) {  // where the loop is unrolled, the compiler chooses
        both = upper ? high(both) : low(both);
        for (int i = 0; i < 4; ++i) {
            uint8x16_t more = rest.at[i];
            switch (at) {
                case 0: more = vshlq_n_u8(more, 4); break;
                case 2: more = vshlq_n_u8(more, 2); break;
                case 6: more = vshrq_n_u8(more, 2); break;
            }
            both.at[i] = vorrq_u8(both.at[i], vandq_u8(more, vdupq_n_u8(48)));
        }
        return both;
    }

    // The dot product takes signed bytes only. Codes of 4 and 6 bits are small enough; those of 8 bits lose their zero here.
    static constexpr int32_t kZero8 = 0;
    static Bytes whole(Bytes x) {
        for (auto& v : x.at) v = veorq_u8(v, vdupq_n_u8(128));
        return x;
    }

    // A lane of sixteen activations: the product takes it as it is, so that four lanes cost one load and no copies.
    // Where the loop over j is unrolled, the choice below is made by the compiler.
    struct Four {
        int8x16_t run;
        int lane;
    };
    static Four four(const int8_t* p, int j) { return {vld1q_s8(p + j / 4 * 16), j % 4}; }

    template <int Bits>
    static Ints dot(Ints sum, Bytes weights, Four a) {
        switch (a.lane) {
            case 0: return dot_lane<0>(sum, weights, a.run);
            case 1: return dot_lane<1>(sum, weights, a.run);
            case 2: return dot_lane<2>(sum, weights, a.run);
            default: return dot_lane<3>(sum, weights, a.run);
        }
    }
    template <int Lane>
    static Ints dot_lane(Ints sum, Bytes weights, int8x16_t run) {
        for (int i = 0; i < 4; ++i) sum.at[i] = vdotq_laneq_s32(sum.at[i], vreinterpretq_s8_u8(weights.at[i]), run, Lane);
        return sum;
    }

    static Floats to_floats(Ints x) {
        Floats r;
        for (int i = 0; i < 4; ++i) r.at[i] = vcvtq_f32_s32(x.at[i]);
        return r;
    }
    static Floats mul(Floats a, Floats b) {
        for (int i = 0; i < 4; ++i) a.at[i] = vmulq_f32(a.at[i], b.at[i]);
        return a;
    }
    static Floats add(Floats a, Floats b) {
        for (int i = 0; i < 4; ++i) a.at[i] = vaddq_f32(a.at[i], b.at[i]);
        return a;
    }
    static Floats fma(Floats a, Floats b, Floats c) {
        for (int i = 0; i < 4; ++i) c.at[i] = vfmaq_f32(c.at[i], a.at[i], b.at[i]);
        return c;
    }
    static Floats sub(Floats a, Floats b) {
        for (int i = 0; i < 4; ++i) a.at[i] = vsubq_f32(a.at[i], b.at[i]);
        return a;
    }
    static Floats max(Floats a, Floats b) {
        for (int i = 0; i < 4; ++i) a.at[i] = vmaxq_f32(a.at[i], b.at[i]);
        return a;
    }
    static Floats div(Floats a, Floats b) {
        for (int i = 0; i < 4; ++i) a.at[i] = vdivq_f32(a.at[i], b.at[i]);
        return a;
    }
    static float sum(Floats x) { return vaddvq_f32(vaddq_f32(vaddq_f32(x.at[0], x.at[1]), vaddq_f32(x.at[2], x.at[3]))); }
    static float most(Floats x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.at[0], x.at[1]), vmaxq_f32(x.at[2], x.at[3]))); }

    // 2^(x log2 e): a polynomial for the fraction, the exponent field for the rest; relative error below 1e-6.
    static Floats exp(Floats x) {
        const float32x4_t high = vdupq_n_f32(1.44269504f), low = vdupq_n_f32(1.92596299e-8f), least = vdupq_n_f32(-87.3f);
        Floats r;
        for (int i = 0; i < 4; ++i) {
            const float32x4_t v = vminq_f32(vmaxq_f32(x.at[i], least), vdupq_n_f32(88.0f));
            const float32x4_t whole = vrndnq_f32(vmulq_f32(v, high));
            const float32x4_t f = vfmaq_f32(vfmaq_f32(vnegq_f32(whole), v, high), v, low);
            float32x4_t p = vdupq_n_f32(1.5403530e-4f);
            p = vfmaq_f32(vdupq_n_f32(1.3333558e-3f), p, f);
            p = vfmaq_f32(vdupq_n_f32(9.6181291e-3f), p, f);
            p = vfmaq_f32(vdupq_n_f32(5.5504109e-2f), p, f);
            p = vfmaq_f32(vdupq_n_f32(2.4022651e-1f), p, f);
            p = vfmaq_f32(vdupq_n_f32(6.9314718e-1f), p, f);
            p = vfmaq_f32(vdupq_n_f32(1.0f), p, f);
            const int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(whole), vdupq_n_s32(127)), 23);
            // What is below the smallest normal number is 0, as a masked score must be; a NaN stays one.
            const uint32x4_t dead = vcleq_f32(x.at[i], least);
            const float32x4_t power = vmulq_f32(p, vreinterpretq_f32_s32(bits));
            r.at[i] = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(power), dead));
        }
        return r;
    }

    // Lane i of the result is the sum of the lanes of x[i]: additions of neighbours, which bring four sums side by side.
    static Floats sums(const Floats* x) {
        Floats r;
        for (int i = 0; i < 4; ++i) {
            float32x4_t four[4];
            for (int j = 0; j < 4; ++j) {
                const Floats& one = x[4 * i + j];
                four[j] = vaddq_f32(vaddq_f32(one.at[0], one.at[1]), vaddq_f32(one.at[2], one.at[3]));
            }
            r.at[i] = vpaddq_f32(vpaddq_f32(four[0], four[1]), vpaddq_f32(four[2], four[3]));
        }
        return r;
    }

    static Floats load(const uint16_t* p) {
        const uint16x8_t none = vdupq_n_u16(0);
        Floats r;
        for (int i = 0; i < 2; ++i) {
            const uint16x8_t v = vld1q_u16(p + 8 * i);
            r.at[2 * i] = vreinterpretq_f32_u16(vzip1q_u16(none, v));
            r.at[2 * i + 1] = vreinterpretq_f32_u16(vzip2q_u16(none, v));
        }
        return r;
    }

    static Floats halves(const uint8_t* p) {
        Floats r;
        for (int i = 0; i < 4; ++i) r.at[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i)));
        return r;
    }

    static float most32(const float* x) {
        float32x4_t top = vdupq_n_f32(0);
        for (int i = 0; i < 8; ++i) top = vmaxq_f32(top, vabsq_f32(vld1q_f32(x + 4 * i)));
        return vmaxvq_f32(top);  // which keeps a NaN
    }
    static int32_t codes32(const float* x, float inverse, int8_t* q) {
        const float32x4_t steps = vdupq_n_f32(inverse);
        int32x4_t total = vdupq_n_s32(0);
        int16x8_t words[4];
        for (int i = 0; i < 4; ++i) {
            const int32x4_t a = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 8 * i), steps));
            const int32x4_t b = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + 8 * i + 4), steps));
            total = vaddq_s32(total, vaddq_s32(a, b));
            words[i] = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
        }
        for (int i = 0; i < 2; ++i) vst1q_s8(q + 16 * i, vcombine_s8(vmovn_s16(words[2 * i]), vmovn_s16(words[2 * i + 1])));
        return vaddvq_s32(total);
    }

    static void prefetch(const void* p) { __builtin_prefetch(p); }
};

}  // namespace
}  // namespace sambay
