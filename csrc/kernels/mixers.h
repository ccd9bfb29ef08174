// What lies between the projections: causal convolution, selective scan, norms.
//
// Templates over the vectors of an instruction set, in float32; states may be float32 or bfloat16. A thread is
// given a range of independent work (channels, heads), never a lock. Sequences are packed: rows offsets[s] to
// offsets[s + 1] belong to sequence s, which has seen starts[s] tokens before and whose state is slots[s].
#pragma once

#include <cmath>
#include <cstring>

#include "arguments.h"

namespace sambay {
namespace {

inline float from_cache(float x) { return x; }
inline float from_cache(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline void to_cache(float& out, float x) { out = x; }
inline void to_cache(uint16_t& out, float x) {  // to the nearest, ties to even; a NaN stays one
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) out = uint16_t((bits >> 16) | 64);
    else out = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Sixteen channels at a time, and the rest of fewer with zeros behind.
template <class V>
inline typename V::Floats some(const float* p, int64_t count) {
    if (count >= 16) return V::load(p);
    float buffer[16] = {};
    for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
    return V::load(buffer);
}
template <class V>
inline void put(float* p, typename V::Floats x, int64_t count) {
    if (count >= 16) return V::store(p, x);
    float buffer[16];
    V::store(buffer, x);
    for (int64_t i = 0; i < count; ++i) p[i] = buffer[i];
}

template <class V>
inline typename V::Floats silu(typename V::Floats x) {
    const auto one = V::floats(1);
    return V::div(x, V::add(one, V::exp(V::sub(V::floats(0), x))));
}

// out = silu(conv(x) + bias) over channels `first` to `last`; taps (K, d) oldest first; state (slots, K-1, d).
template <class V, class C>
void causal_conv(const Sequences& seq, const float* x, int64_t stride, const float* taps, const float* bias, int64_t width,
                 C* state, int64_t d, float* out, int64_t first, int64_t last) {
    const int64_t past = width - 1;
    for (int64_t c = first; c < last; c += 16) {
        const int64_t count = least(16, last - c);
        typename V::Floats w[8], window[8];
        for (int64_t k = 0; k < width; ++k) w[k] = some<V>(taps + k * d + c, count);
        const auto b = bias ? some<V>(bias + c, count) : V::floats(0);
        for (int64_t s = 0; s < seq.count; ++s) {
            C* held = state ? state + seq.slots[s] * past * d + c : nullptr;
            for (int64_t k = 0; k < past; ++k) {
                float old[16] = {};
                if (held)
                    for (int64_t i = 0; i < count; ++i) old[i] = from_cache(held[k * d + i]);
                window[k] = V::load(old);
            }
            for (int64_t t = seq.offsets[s]; t < seq.offsets[s + 1]; ++t) {
                window[past] = some<V>(x + t * stride + c, count);
                auto sum = b;
                for (int64_t k = 0; k < width; ++k) sum = V::fma(window[k], w[k], sum);
                for (int64_t k = 0; k < past; ++k) window[k] = window[k + 1];
                put<V>(out + t * d + c, silu<V>(sum), count);
            }
            if (held && seq.writes(s))
                for (int64_t k = 0; k < past; ++k) {
                    float now[16];
                    V::store(now, window[k]);
                    for (int64_t i = 0; i < count; ++i) to_cache(held[k * d + i], now[i]);
                }
        }
    }
}

// log(1 + exp(x)) = max(x, 0) + log(1 + t) with t = exp(-|x|) in (0, 1]. log(1 + t) = 2 artanh(s), s = t / (2 + t) at
// most 1/3: eight terms of the series leave a relative error below 1e-8, at both ends too.
template <class V>
inline typename V::Floats softplus(typename V::Floats x) {
    const auto zero = V::floats(0), minus = V::sub(zero, x);
    const auto t = V::exp(V::sub(zero, V::max(x, minus)));
    const auto s = V::div(t, V::add(t, V::floats(2))), square = V::mul(s, s);
    auto sum = V::floats(2.0f / 15);
    for (int k = 13; k > 0; k -= 2) sum = V::fma(sum, square, V::floats(2.0f / float(k)));
    return V::fma(sum, s, V::max(zero, x));  // in this order a NaN stays one
}

// The recurrence h = exp(dt a) h + dt b u, y = c h + skip u over channels `first` to `last`, with
// dt = softplus(raw + bias). raw, u (rows, d); a (n, d) negative; b, c (rows, n) with stride `bc_stride`;
// state (slots, n, d) or null. y (rows, d), and gated = y * silu(z) where z is given.
template <class V, int N>
void selective_scan(const Sequences& seq, const float* u, const float* raw, const float* bias, const float* a,
                    const float* b, const float* c, int64_t bc_stride, const float* skip, float* state, int64_t n_all,
                    int64_t d, float* y, const float* z, int64_t z_stride, float* gated, int64_t first, int64_t last) {
    const int64_t n = N ? N : n_all;
    for (int64_t ch = first; ch < last; ch += 16) {
        const int64_t count = least(16, last - ch);
        typename V::Floats rate[N ? N : 64], h[N ? N : 64];
        for (int64_t i = 0; i < n; ++i) rate[i] = some<V>(a + i * d + ch, count);
        const auto direct = some<V>(skip + ch, count), offset = bias ? some<V>(bias + ch, count) : V::floats(0);
        for (int64_t s = 0; s < seq.count; ++s) {
            float* held = state ? state + seq.slots[s] * n * d + ch : nullptr;
            for (int64_t i = 0; i < n; ++i) h[i] = held ? some<V>(held + i * d, count) : V::floats(0);
            for (int64_t t = seq.offsets[s]; t < seq.offsets[s + 1]; ++t) {
                const auto dt = softplus<V>(V::add(some<V>(raw + t * d + ch, count), offset));
                const auto in = some<V>(u + t * d + ch, count), drive = V::mul(dt, in);
                auto out = V::mul(direct, in);
                const float *bt = b + t * bc_stride, *ct = c + t * bc_stride;
#pragma GCC unroll 16
                for (int64_t i = 0; i < n; ++i) {
                    h[i] = V::fma(V::exp(V::mul(dt, rate[i])), h[i], V::mul(drive, V::floats(bt[i])));
                    out = V::fma(h[i], V::floats(ct[i]), out);
                }
                put<V>(y + t * d + ch, out, count);
                if (gated) put<V>(gated + t * d + ch, V::mul(out, silu<V>(some<V>(z + t * z_stride + ch, count))), count);
            }
            if (held && seq.writes(s))
                for (int64_t i = 0; i < n; ++i) put<V>(held + i * d, h[i], count);
        }
    }
}

// RMSNorm over `width` (a multiple of 16), times `scale`; in place.
template <class V>
void head_norm(float* x, const float* weight, int64_t width, float eps, float scale) {
    auto square = V::floats(0);
    for (int64_t e = 0; e < width; e += 16) square = V::fma(V::load(x + e), V::load(x + e), square);
    const float inverse = scale / std::sqrt(V::sum(square) / float(width) + eps);
    for (int64_t e = 0; e < width; e += 16)
        V::store(x + e, V::mul(V::mul(V::load(x + e), V::floats(inverse)), V::load(weight + e)));
}

// Residual and LayerNorm (or RMSNorm, bias null and mean 0) of one row: hidden += scale * mixed; out = norm(hidden).
template <class V>
void add_norm(float* hidden, const float* mixed, float scale, const float* weight, const float* bias, bool centred,
              float eps, int64_t width, float* out) {
    auto sum = V::floats(0);
    for (int64_t e = 0; e < width; e += 16) {
        const int64_t count = least(16, width - e);
        auto h = some<V>(hidden + e, count);
        if (mixed) {
            h = V::fma(V::floats(scale), some<V>(mixed + e, count), h);
            put<V>(hidden + e, h, count);
        }
        sum = V::add(sum, h);
    }
    const float mean = centred ? V::sum(sum) / float(width) : 0.0f;
    auto square = V::floats(0);
    for (int64_t e = 0; e < width; e += 16) {
        const int64_t count = least(16, width - e);
        auto h = V::sub(some<V>(hidden + e, count), V::floats(mean));
        if (count < 16) {
            float lanes[16];
            V::store(lanes, h);
            for (int64_t i = count; i < 16; ++i) lanes[i] = 0;
            h = V::load(lanes);
        }
        square = V::fma(h, h, square);
    }
    const auto inverse = V::floats(1 / std::sqrt(V::sum(square) / float(width) + eps));
    for (int64_t e = 0; e < width; e += 16) {
        const int64_t count = least(16, width - e);
        auto h = V::mul(V::sub(some<V>(hidden + e, count), V::floats(mean)), inverse);
        h = V::mul(h, some<V>(weight + e, count));
        if (bias) h = V::add(h, some<V>(bias + e, count));
        put<V>(out + e, h, count);
    }
}

template <class V>
void conv_kernel(const ConvArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.d), 16);
    const int64_t first = int64_t(mine.begin), last = int64_t(mine.end);
    if (arg.half)
        causal_conv<V>(arg.seq, arg.x, arg.x_stride, arg.taps, arg.bias, arg.width, static_cast<uint16_t*>(arg.state), arg.d,
                       arg.out, first, last);
    else
        causal_conv<V>(arg.seq, arg.x, arg.x_stride, arg.taps, arg.bias, arg.width, static_cast<float*>(arg.state), arg.d,
                       arg.out, first, last);
}

template <class V>
void scan_kernel(const ScanArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.d), 16);
    const int64_t first = int64_t(mine.begin), last = int64_t(mine.end);
    if (arg.n == 16)
        selective_scan<V, 16>(arg.seq, arg.u, arg.raw, arg.bias, arg.a, arg.b, arg.c, arg.bc_stride, arg.skip, arg.state, arg.n,
                              arg.d, arg.y, arg.z, arg.z_stride, arg.gated, first, last);
    else
        selective_scan<V, 0>(arg.seq, arg.u, arg.raw, arg.bias, arg.a, arg.b, arg.c, arg.bc_stride, arg.skip, arg.state, arg.n,
                             arg.d, arg.y, arg.z, arg.z_stride, arg.gated, first, last);
}

template <class V>
void norm_kernel(const NormArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.m), 1);
    for (size_t i = mine.begin; i < mine.end; ++i) {
        const int64_t at = int64_t(i) * arg.width;
        add_norm<V>(arg.hidden + at, arg.mixed ? arg.mixed + at : nullptr, arg.scale, arg.weight, arg.bias, arg.centred, arg.eps,
                    arg.width, arg.out + at);
    }
}

template <class V>
void gate_kernel(const GateArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.width), 16);
    for (int64_t row = 0; row < arg.m; ++row) {
        const float *x = arg.x + row * arg.x_stride, *memory = arg.memory + row * arg.memory_stride;
        float* out = arg.out + row * arg.width;
        for (int64_t e = int64_t(mine.begin); e < int64_t(mine.end); e += 16) {
            const int64_t count = least(16, arg.width - e);
            put<V>(out + e, V::mul(some<V>(memory + e, count), silu<V>(some<V>(x + e, count))), count);
        }
    }
}

}  // namespace
}  // namespace sambay
