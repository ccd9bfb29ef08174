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

// The same of a state.
template <class V>
inline typename V::Floats some(const uint16_t* p, int64_t count) {
    if (count >= 16) return V::load(p);
    uint16_t buffer[16] = {};
    for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
    return V::load(buffer);
}
template <class V>
inline void put(uint16_t* p, typename V::Floats x, int64_t count) {
    float wide[16];
    V::store(wide, x);
    const int64_t all = least(16, count);  // unknown to the compiler, or it would not make vectors of this
    for (int64_t i = 0; i < all; ++i) to_cache(p[i], wide[i]);
}

template <class V>
inline typename V::Floats silu(typename V::Floats x) {
    const auto one = V::floats(1);
    return V::div(x, V::add(one, V::exp(V::sub(V::floats(0), x))));
}

// out = silu(conv(x) + bias) over channels `first` to `last`; taps (K, d) oldest first; state (slots, K-1, d).
// One sequence after the other: of many states at once the caches do not know which line comes next.
template <class V, class C, int K>
void causal_conv(const Sequences& seq, const float* x, int64_t stride, const float* taps, const float* bias, int64_t width_all,
                 C* state, int64_t d, float* out, int64_t first, int64_t last) {
    const int64_t width = K ? K : width_all, past = width - 1;
    for (int64_t s = 0; s < seq.count; ++s) {
        C* const held = state ? state + seq.slots[s] * past * d : nullptr;
        for (int64_t c = first; c < last; c += 16) {
            const int64_t count = least(16, last - c);
            typename V::Floats w[K ? K : 8], window[K ? K : 8];
            for (int64_t k = 0; k < width; ++k) w[k] = some<V>(taps + k * d + c, count);
            for (int64_t k = 0; k < past; ++k) window[k] = held ? some<V>(held + k * d + c, count) : V::floats(0);
            const auto b = bias ? some<V>(bias + c, count) : V::floats(0);
            for (int64_t t = seq.offsets[s]; t < seq.offsets[s + 1]; ++t) {
                window[past] = some<V>(x + t * stride + c, count);
                auto sum = b;
                for (int64_t k = 0; k < width; ++k) sum = V::fma(window[k], w[k], sum);
                for (int64_t k = 0; k < past; ++k) window[k] = window[k + 1];
                put<V>(out + t * d + c, silu<V>(sum), count);
            }
            if (held && seq.writes(s))
                for (int64_t k = 0; k < past; ++k) put<V>(held + k * d + c, window[k], count);
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

// Sixteen channels of one sequence from `ch` on, or the last `count`: rate and h (n, 16 with a stride), which changes.
template <class V, bool Whole>
void scan_channels(const ScanArguments& arg, int64_t s, int64_t ch, int64_t count, const float* rate, float* h, int64_t stride) {
    const auto get = [=](const float* p) { return Whole ? V::load(p) : some<V>(p, count); };
    const auto set = [=](float* p, typename V::Floats x) { Whole ? V::store(p, x) : put<V>(p, x, count); };
    const auto direct = get(arg.skip + ch), offset = arg.bias ? get(arg.bias + ch) : V::floats(0);
    for (int64_t t = arg.seq.offsets[s]; t < arg.seq.offsets[s + 1]; ++t) {
        const auto dt = softplus<V>(V::add(get(arg.raw + t * arg.d + ch), offset));
        const auto in = get(arg.u + t * arg.d + ch), drive = V::mul(dt, in);
        auto out = V::mul(direct, in);
        const float *b = arg.b + t * arg.bc_stride, *c = arg.c + t * arg.bc_stride;
        for (int64_t i = 0; i < arg.n; ++i) {
            const auto decay = V::exp(V::mul(dt, get(rate + i * stride)));
            const auto now = V::fma(decay, get(h + i * stride), V::mul(drive, V::floats(b[i])));
            out = V::fma(now, V::floats(c[i]), out);
            set(h + i * stride, now);
        }
        set(arg.y + t * arg.d + ch, out);
        if (arg.gated) set(arg.gated + t * arg.d + ch, V::mul(out, silu<V>(get(arg.z + t * arg.z_stride + ch))));
    }
}

// The recurrence h = exp(dt a) h + dt b u, y = c h + skip u over channels `first` to `last`, with
// dt = softplus(raw + bias); gated = y * silu(z) where z is given.
template <class V>
void selective_scan(const ScanArguments& arg, int64_t first, int64_t last) {
    alignas(64) float rates[64 * 16], states[64 * 16];
    for (int64_t s = 0; s < arg.seq.count; ++s) {
        float* const held = arg.state ? arg.state + arg.seq.slots[s] * arg.n * arg.d : nullptr;
        const bool writes = held && arg.seq.writes(s), single = arg.seq.offsets[s + 1] - arg.seq.offsets[s] == 1;
        for (int64_t ch = first; ch < last; ch += 16) {
            const int64_t count = least(16, last - ch);
            if (single && writes && count == 16) {
                scan_channels<V, true>(arg, s, ch, count, arg.a + ch, held + ch, arg.d);
                continue;
            }
            // Side by side: rows that are far apart may all fall into the same few places of the first-level cache.
            for (int64_t i = 0; i < arg.n; ++i) {
                V::store(rates + i * 16, some<V>(arg.a + i * arg.d + ch, count));
                V::store(states + i * 16, held ? some<V>(held + i * arg.d + ch, count) : V::floats(0));
            }
            if (count == 16) scan_channels<V, true>(arg, s, ch, count, rates, states, 16);
            else scan_channels<V, false>(arg, s, ch, count, rates, states, 16);
            for (int64_t i = 0; writes && i < arg.n; ++i) put<V>(held + i * arg.d + ch, V::load(states + i * 16), count);
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

template <class V, class C>
void conv_typed(const ConvArguments& arg, int64_t first, int64_t last) {
    const auto conv = arg.width == 4 ? causal_conv<V, C, 4> : causal_conv<V, C, 0>;
    conv(arg.seq, arg.x, arg.x_stride, arg.taps, arg.bias, arg.width, static_cast<C*>(arg.state), arg.d, arg.out, first, last);
}

template <class V>
void conv_kernel(const ConvArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.d), 16);
    if (arg.half) conv_typed<V, uint16_t>(arg, int64_t(mine.begin), int64_t(mine.end));
    else conv_typed<V, float>(arg, int64_t(mine.begin), int64_t(mine.end));
}

template <class V>
void scan_kernel(const ScanArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.d), 16);
    selective_scan<V>(arg, int64_t(mine.begin), int64_t(mine.end));
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
