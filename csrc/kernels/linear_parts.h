// What all products with a quantised matrix share: activations in bytes, rows in tiles, what is asked for ahead.
#pragma once

#include <type_traits>

#include "mixers.h"

namespace sambay {
namespace {

// The kinds of packed matrices, as templates name them: 4, 6 and 8 bits with a scale for every group, and four bits whose
// groups of 32 have a small whole number for a scale, times a scale of the superblock (linear_nested.h).
constexpr int kNested = 5;

// Columns that share a scale of the activations, hence the most that one sum of integers holds.
inline int64_t block_of(const Packed& w) { return w.nested() ? 128 : 32; }

// Activations in signed bytes: (m, k) codes, and for every block a scale, (k / block, m), so that those of neighbouring rows
// are neighbours. `starts` is what a sum of 32 products begins at, -zero * (sum of their codes), (k / 32, m); `long_starts`
// the same for a block of 128 and the zero of expanded codes.
struct Activations {
    int8_t* codes;
    float* scales;
    int32_t *starts, *long_starts;
    int64_t m, k, block;
};

template <class V>
int32_t zero_of(const Packed& w) { return w.bits == 4 ? 8 : w.bits == 6 ? 32 : V::kZero8; }

// The codes of what is no number may sum up to anything.
inline int32_t times(int32_t a, int32_t b) { return int32_t(uint32_t(a) * uint32_t(b)); }

// Quantise block `at` of a row for weights with that zero.
template <class V>
inline void quantise_block(const float* x, const Activations& out, int64_t row, int64_t at, int32_t zero) {
    const int64_t parts = out.block / 32;
    float most = 0;
    for (int64_t i = 0; i < parts; ++i) {
        const float own = V::most32(x + 32 * i);
        most = own > most || own != own ? own : most;  // a NaN stays
    }
    const float inverse = most > 0 ? 127.0f / most : 0.0f;
    uint32_t sum = 0;
    for (int64_t i = 0; i < parts; ++i) {
        const int32_t own = V::codes32(x + 32 * i, inverse, out.codes + row * out.k + out.block * at + 32 * i);
        out.starts[(at * parts + i) * out.m + row] = times(-zero, own);
        sum += uint32_t(own);
    }
    out.scales[at * out.m + row] = most / 127.0f;
    if (parts > 1) out.long_starts[at * out.m + row] = times(-V::kZero8, int32_t(sum));
}

// Quantise rows `first` to `last` of x (m, width) float32; what lies between width and k becomes zero.
template <class V>
void quantise_rows(const float* x, int64_t stride, int64_t width, const Activations& out, int32_t zero, int64_t first, int64_t last) {
    const int64_t block = out.block, blocks = out.k / block;
    for (int64_t row = first; row < last; ++row) {
        const float* source = x + row * stride;
        for (int64_t at = 0; at < blocks; ++at) {
            const int64_t have = least(block, width - block * at);
            if (have == block) {
                quantise_block<V>(source + block * at, out, row, at, zero);
                continue;
            }
            float padded[128] = {};
            for (int64_t i = 0; i < have; ++i) padded[i] = source[block * at + i];
            quantise_block<V>(padded, out, row, at, zero);
        }
    }
}

// f with the number of rows, from 1 to T, as a constant.
template <int T, class F>
inline void counted(int64_t count, const F& f) {
    if constexpr (T > 1)
        if (count < T) return counted<T - 1>(count, f);
    f(std::integral_constant<int, T>());
}

// Eight lines of codes, `line(p, j)` of each panel, with T rows of activations from k on: an activation is loaded once for
// all panels.
template <class V, int Bits, int P, int T, class Line>
inline void eight_lines(const Line& line, const Activations& a, int64_t row, int64_t k, typename V::Ints (*sum)[T]) {
    const int8_t* codes = a.codes + row * a.k + k;
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        typename V::Bytes w[P];
        for (int p = 0; p < P; ++p) w[p] = line(p, j);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const typename V::Four four = V::four(codes + t * a.k, j);
            for (int p = 0; p < P; ++p) sum[p][t] = V::template dot<Bits>(sum[p][t], w[p], four);
        }
    }
}

template <class V>
inline void finish(typename V::Floats acc, const float* bias, float* out, int64_t panel, int64_t rows) {
    const int64_t first = 16 * panel, count = least(16, rows - first);
    put<V>(out + first, bias ? V::add(acc, some<V>(bias + first, count)) : acc, count);
}

constexpr int64_t kAhead = 8192;  // bytes to prefetch ahead: the hardware's own streams stop at pages
inline void fetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }  // into the second-level cache

// The same for a stream that is used once, as soon as it comes: into the first level, which holds it for that long.
constexpr int64_t kNear = 4096;
inline void fetch_near(const uint8_t* p) { __builtin_prefetch(p + kNear, 0, 3); }

// Load a line of codes, and ask for the one that comes `kAhead` later.
template <class V>
inline typename V::Bytes ahead(const uint8_t* p) {
    fetch(p + kAhead);
    return V::bytes(p);
}

// What the next panels need from memory, asked for evenly while those at hand are multiplied: so many lines in a step.
struct Lines {
    const uint8_t *next, *end;
    int64_t each;
    void step() {
        for (int64_t i = 0; i < each && next < end; ++i, next += 64) fetch(next);
    }
};

}  // namespace
}  // namespace sambay
