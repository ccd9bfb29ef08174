// Keys and values as they are kept: the layout of src/sambay/kv.py, tile by tile, and how tokens get there.
#pragma once

#include "mixers.h"

namespace sambay {
namespace {

// A byte that is kept: 128 + the nearest step.
struct Code { uint8_t at; };

// The tile of a group of heads. Keys (maps, width, 64), or (maps, width / 4, 64, 4) bytes, the heads `key_step` elements
// apart; values (64, maps * width), or (16, maps * width, 4) bytes.
template <class C>
struct Tile {
    C *keys, *values;
    int64_t key_step;
    uint16_t *key_scales, *value_scales;  // (maps, 64) with scale_step, (64,)
    int64_t scale_step;
};

template <class C>
inline Tile<C> tile_of(const Cache& cache, const Heads& h, int64_t page, int64_t group, int64_t tile) {
    const int64_t tokens = cache.tiles * kTileTokens, wide = h.maps * h.width, head = page * h.kv_heads + group * h.maps;
    const int64_t pair = page * h.groups() + group;
    Tile<C> t{};
    t.keys = static_cast<C*>(cache.keys) + (head * cache.tiles + tile) * h.width * kTileTokens;
    t.key_step = tokens * h.width;
    t.values = static_cast<C*>(cache.values) + (pair * tokens + tile * kTileTokens) * wide;
    if (cache.key_scales) {
        t.key_scales = cache.key_scales + head * tokens + tile * kTileTokens;
        t.value_scales = cache.value_scales + pair * tokens + tile * kTileTokens;
        t.scale_step = tokens;
    }
    return t;
}

inline uint16_t to_half(float x) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return uint16_t(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return uint16_t(sign | 0x7c00u);
    if (rest < 0x38800000u) {  // subnormal: adding 0.5 leaves the wanted bits at the end of the fraction
        float magnitude;
        std::memcpy(&magnitude, &rest, 4);
        magnitude += 0.5f;
        uint32_t sum;
        std::memcpy(&sum, &magnitude, 4);
        return uint16_t(sign | (sum - 0x3f000000u));
    }
    return uint16_t(sign | ((rest + 0xfffu + (rest >> 13 & 1) - 0x38000000u) >> 13));
}

inline float from_half(uint16_t x) {
    const uint32_t sign = uint32_t(x & 0x8000u) << 16, rest = x & 0x7fffu;
    float value;
    if (rest < 0x400u) {
        value = float(rest) * 5.9604644775390625e-8f;
        return sign ? -value : value;
    }
    const uint32_t bits = sign | (rest >= 0x7c00u ? 0x7f800000u | rest << 13 : (rest << 13) + 0x38000000u);
    std::memcpy(&value, &bits, 4);
    return value;
}

// The scale of a vector that is kept as bytes: its largest magnitude is 127 steps. Not a number stays so.
inline uint16_t step_of(const float* x, int64_t count) {
    float most = 0;
    for (int64_t e = 0; e < count; ++e) {
        const float size = std::fabs(x[e]);
        if (size > most || size != size) most = size;
    }
    return to_half(most / 127.0f);
}
inline uint8_t code_of(float x, float step) {
    const float steps = step > 0 ? std::nearbyint(x / step) : 0.0f;
    return uint8_t(int32_t(steps < -127 ? -127.0f : steps > 127 ? 127.0f : steps == steps ? steps : 0.0f) + 128);
}

// Keep one token of a group: k, v (maps * width,) float32.
template <class C>
inline void keep(const Tile<C>& t, const Heads& h, int64_t lane, const float* k, const float* v) {
    for (int64_t m = 0; m < h.maps; ++m)
        for (int64_t e = 0; e < h.width; ++e) to_cache(t.keys[m * t.key_step + e * kTileTokens + lane], k[m * h.width + e]);
    for (int64_t e = 0; e < h.maps * h.width; ++e) to_cache(t.values[lane * h.maps * h.width + e], v[e]);
}
template <>
inline void keep(const Tile<Code>& t, const Heads& h, int64_t lane, const float* k, const float* v) {
    for (int64_t m = 0; m < h.maps; ++m, k += h.width) {
        const uint16_t scale = step_of(k, h.width);
        const float step = from_half(scale);
        t.key_scales[m * t.scale_step + lane] = scale;
        Code* keys = t.keys + m * t.key_step + lane * 4;
        for (int64_t e = 0; e < h.width; ++e) keys[e / 4 * kTileTokens * 4 + e % 4].at = code_of(k[e], step);
    }
    const int64_t wide = h.maps * h.width;
    const uint16_t scale = step_of(v, wide);
    const float step = from_half(scale);
    t.value_scales[lane] = scale;
    Code* values = t.values + lane / 4 * wide * 4 + lane % 4;
    for (int64_t e = 0; e < wide; ++e) values[e * 4].at = code_of(v[e], step);
}

// A whole tile to another place.
template <class C>
inline void copy_tile(const Tile<C>& from, const Tile<C>& to, const Heads& h) {
    const int64_t head = h.width * kTileTokens;
    for (int64_t m = 0; m < h.maps; ++m) {
        std::memcpy(to.keys + m * to.key_step, from.keys + m * from.key_step, size_t(head) * sizeof(C));
        if (from.key_scales)
            std::memcpy(to.key_scales + m * to.scale_step, from.key_scales + m * from.scale_step, kTileTokens * 2);
    }
    std::memcpy(to.values, from.values, size_t(head * h.maps) * sizeof(C));
    if (from.key_scales) std::memcpy(to.value_scales, from.value_scales, kTileTokens * 2);
}

template <class C>
void keep_all(const KeepArguments& arg, const Team& team) {
    const Heads& h = arg.heads;
    const Share mine = share(team, size_t(arg.count * h.groups()), 1);
    for (size_t item = mine.begin; item < mine.end; ++item) {
        const int64_t row = int64_t(item) / h.groups(), group = int64_t(item) % h.groups(), at = group * h.maps * h.width;
        if (arg.owners[row] < 0) continue;
        const int64_t place = arg.places[row];
        keep(tile_of<C>(arg.cache, h, arg.owners[row], group, place / kTileTokens), h, place % kTileTokens,
             arg.k + row * arg.k_stride + at, arg.v + row * arg.v_stride + at);
    }
}

template <class V>
void keep_kernel(const KeepArguments& arg, const Team& team) {
    if (arg.cache.kept == Kept::float32) keep_all<float>(arg, team);
    else if (arg.cache.kept == Kept::bfloat16) keep_all<uint16_t>(arg, team);
    else keep_all<Code>(arg, team);
}

}  // namespace
}  // namespace sambay
