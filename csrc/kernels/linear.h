// Products with a quantised matrix, for one row of activations to thousands: a template over the vectors of an
// instruction set.
//
// The matrix lies in panels of sixteen rows. A panel is a row of superblocks, each of 2 * group consecutive k:
// 64 bytes of float16 scales (sixteen of the first group, sixteen of the second), then the codes, four
// consecutive k of one row in each 32-bit lane. Four-bit codes of the first group are the low nibbles, those of
// the second the high ones. A code u stands for (u - zero) * scale, with zero = 8 or 128.
//
// Activations are quantised to signed bytes in blocks of 32, each with a scale: products are exact in 32-bit
// integers within a block, and are scaled and added in float32. The zero is taken off in the integers: a sum
// begins at -zero * (sum of the block's activations).
//
// Few rows read the packed codes once and keep everything in registers: bound by memory. Many rows unpack a few
// panels into the second-level cache and run over all activations: bound by the multipliers.
#pragma once

#include "mixers.h"

namespace sambay {
namespace {

// Activations in signed bytes: (m, k) codes, and for every block of 32 a scale and the sum of its codes.
struct Activations {
    int8_t* codes;
    float* scales;
    int32_t* sums;
    int64_t m, k;
};

// Quantise rows `first` to `last` of x (m, width) float32; what lies between width and k becomes zero.
template <class V>
void quantise_rows(const float* x, int64_t stride, int64_t width, Activations out, int64_t first, int64_t last) {
    const int64_t blocks = out.k / 32;
    for (int64_t row = first; row < last; ++row) {
        const float* source = x + row * stride;
        int8_t* codes = out.codes + row * out.k;
        float* scales = out.scales + row * blocks;
        int32_t* sums = out.sums + row * blocks;
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t have = least(32, width - 32 * block);
            if (have == 32) {
                scales[block] = V::quantise32(source + 32 * block, codes + 32 * block, sums + block);
                continue;
            }
            float padded[32] = {};
            for (int64_t i = 0; i < have; ++i) padded[i] = source[32 * block + i];
            scales[block] = V::quantise32(padded, codes + 32 * block, sums + block);
        }
    }
}


constexpr int64_t kAhead = 8192;  // bytes to prefetch ahead: the hardware's own streams stop at pages
inline void fetch(const uint8_t* p) { __builtin_prefetch(p + kAhead, 0, 2); }  // into the second-level cache

// Load a line of codes, and ask for the one that comes `kAhead` later.
template <class V>
inline typename V::Bytes ahead(const uint8_t* p) {
    fetch(p);
    return V::bytes(p);
}

// One block of 32 k for T rows of activations. `Weights(j)` gives the codes of the j-th four k.
template <class V, int Bits, int T, class Weights>
inline void block(const Weights& weights, typename V::Floats scale, const Activations& a, int64_t row, int64_t at,
                  typename V::Floats* acc) {
    constexpr int32_t zero = Bits == 4 ? 8 : V::kZero8;
    const int64_t blocks = a.k / 32;
    typename V::Ints sum[T];
    for (int t = 0; t < T; ++t) sum[t] = V::ints(-zero * a.sums[(row + t) * blocks + at]);
    const int8_t* codes = a.codes + row * a.k + 32 * at;
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        const typename V::Bytes w = weights(j);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sum[t] = V::template dot<Bits>(sum[t], w, V::four(codes + t * a.k, j));
    }
    for (int t = 0; t < T; ++t) {
        const typename V::Floats both = V::mul(scale, V::floats(a.scales[(row + t) * blocks + at]));
        acc[t] = V::fma(V::to_floats(sum[t]), both, acc[t]);
    }
}

// The same for two panels, with `Weights(p, j)`: an activation is loaded once for both, which is what limits many rows.
template <class V, int Bits, int T, class Weights>
inline void block_pair(const Weights& weights, const typename V::Floats* scale, const Activations& a, int64_t row, int64_t at,
                       typename V::Floats (*acc)[T]) {
    constexpr int32_t zero = Bits == 4 ? 8 : V::kZero8;
    const int64_t blocks = a.k / 32;
    typename V::Ints sum[2][T];
    for (int t = 0; t < T; ++t) sum[0][t] = sum[1][t] = V::ints(-zero * a.sums[(row + t) * blocks + at]);
    const int8_t* codes = a.codes + row * a.k + 32 * at;
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
        const typename V::Bytes first = weights(0, j), second = weights(1, j);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const typename V::Four four = V::four(codes + t * a.k, j);
            sum[0][t] = V::template dot<Bits>(sum[0][t], first, four);
            sum[1][t] = V::template dot<Bits>(sum[1][t], second, four);
        }
    }
    for (int p = 0; p < 2; ++p)
        for (int t = 0; t < T; ++t) {
            const typename V::Floats both = V::mul(scale[p], V::floats(a.scales[(row + t) * blocks + at]));
            acc[p][t] = V::fma(V::to_floats(sum[p][t]), both, acc[p][t]);
        }
}

template <class V>
void finish(typename V::Floats acc, const float* bias, float* out, int64_t panel, int64_t rows) {
    const int64_t first = 16 * panel, count = least(16, rows - first);
    float values[16];
    V::store(values, acc);
    for (int64_t i = 0; i < count; ++i) out[first + i] = bias ? values[i] + bias[first + i] : values[i];
}

// T rows of activations, straight from the packed codes of one panel.
template <class V, int Bits, int T>
void few_rows(const Packed& w, const Activations& a, int64_t row, int64_t panel, typename V::Floats* acc) {
    const uint8_t* p = w.data + panel * w.panel_bytes();
    const int64_t bytes = w.superblock_bytes(), parts = w.group / 32;
    for (int t = 0; t < T; ++t) acc[t] = V::floats(0);
    for (int64_t s = 0, end = w.superblocks(); s < end; ++s, p += bytes) {
        fetch(p);
        const typename V::Floats first = V::halves(p), second = V::halves(p + 32);
        const uint8_t* codes = p + 64;
        const int64_t at = s * 2 * parts;
        if constexpr (Bits == 4) {
            // First all low nibbles, then all high ones, in the order of k: the sum is the same however many rows there are.
            for (int64_t part = 0; part < parts; ++part) {
                const uint8_t* c = codes + 512 * part;
                block<V, 4, T>([c](int j) { return V::low(ahead<V>(c + 64 * j)); }, first, a, row, at + part, acc);
            }
            for (int64_t part = 0; part < parts; ++part) {
                const uint8_t* c = codes + 512 * part;
                block<V, 4, T>([c](int j) { return V::high(V::bytes(c + 64 * j)); }, second, a, row, at + parts + part, acc);
            }
        } else {
            for (int64_t part = 0; part < 2 * parts; ++part) {
                const uint8_t* c = codes + 512 * part;
                block<V, 8, T>([c](int j) { return V::whole(ahead<V>(c + 64 * j)); }, part < parts ? first : second, a, row, at + part, acc);
            }
        }
    }
}

// The same for two panels side by side, in the same order.
template <class V, int Bits, int T>
void few_rows_pair(const Packed& w, const Activations& a, int64_t row, int64_t panel, typename V::Floats (*acc)[T]) {
    const uint8_t* p = w.data + panel * w.panel_bytes();
    const int64_t bytes = w.superblock_bytes(), parts = w.group / 32, next = w.panel_bytes();
    for (int i = 0; i < 2; ++i)
        for (int t = 0; t < T; ++t) acc[i][t] = V::floats(0);
    for (int64_t s = 0, end = w.superblocks(); s < end; ++s, p += bytes) {
        const typename V::Floats first[2] = {V::halves(p), V::halves(p + next)};
        const typename V::Floats second[2] = {V::halves(p + 32), V::halves(p + next + 32)};
        const int64_t at = s * 2 * parts;
        if constexpr (Bits == 4) {
            for (int64_t part = 0; part < parts; ++part) {
                const uint8_t* c = p + 64 + 512 * part;
                block_pair<V, 4, T>([c, next](int i, int j) { return V::low(ahead<V>(c + i * next + 64 * j)); }, first, a, row,
                                    at + part, acc);
            }
            for (int64_t part = 0; part < parts; ++part) {
                const uint8_t* c = p + 64 + 512 * part;
                block_pair<V, 4, T>([c, next](int i, int j) { return V::high(V::bytes(c + i * next + 64 * j)); }, second, a, row,
                                    at + parts + part, acc);
            }
        } else {
            for (int64_t part = 0; part < 2 * parts; ++part) {
                const uint8_t* c = p + 64 + 512 * part;
                block_pair<V, 8, T>([c, next](int i, int j) { return V::whole(ahead<V>(c + i * next + 64 * j)); },
                                    part < parts ? first : second, a, row, at + part, acc);
            }
        }
    }
}

// At most T rows of activations from `row` on, and two panels.
template <class V, int Bits, int T>
void few_pair(int64_t count, const Packed& w, const Activations& a, int64_t row, int64_t panel, const float* bias, float* out,
              int64_t stride, int64_t rows) {
    if constexpr (T > 0) {
        if (count < T) return few_pair<V, Bits, T - 1>(count, w, a, row, panel, bias, out, stride, rows);
        typename V::Floats acc[2][T];
        few_rows_pair<V, Bits, T>(w, a, row, panel, acc);
        for (int p = 0; p < 2; ++p)
            for (int t = 0; t < T; ++t) finish<V>(acc[p][t], bias, out + (row + t) * stride, panel + p, rows);
    }
}

// At most T rows of activations from `row` on, and one panel.
template <class V, int Bits, int T>
void few(int64_t count, const Packed& w, const Activations& a, int64_t row, int64_t panel, const float* bias, float* out,
         int64_t stride, int64_t rows) {
    if constexpr (T > 0) {
        if (count < T) return few<V, Bits, T - 1>(count, w, a, row, panel, bias, out, stride, rows);
        typename V::Floats acc[T];
        few_rows<V, Bits, T>(w, a, row, panel, acc);
        for (int t = 0; t < T; ++t) finish<V>(acc[t], bias, out + (row + t) * stride, panel, rows);
    }
}

// Unpack superblocks `from` to `to` of a panel: codes of one byte, and scales in float32, in order of k.
template <class V, int Bits>
void unpack(const Packed& w, int64_t panel, int64_t from, int64_t to, uint8_t* codes, float* scales) {
    const int64_t bytes = w.superblock_bytes(), parts = w.group / 32;
    const uint8_t* p = w.data + panel * w.panel_bytes() + from * bytes;
    for (int64_t s = from; s < to; ++s, p += bytes) {
        V::store(scales, V::halves(p));
        V::store(scales + 16, V::halves(p + 32));
        scales += 32;
        const int64_t half = 512 * parts;
        if constexpr (Bits == 4) {
            for (int64_t line = 0; line < half; line += 64) {
                const typename V::Bytes both = V::bytes(p + 64 + line);
                V::store(codes + line, V::low(both));
                V::store(codes + half + line, V::high(both));
            }
        } else {
            for (int64_t line = 0; line < 2 * half; line += 64) V::store(codes + line, V::whole(V::bytes(p + 64 + line)));
        }
        codes += 2 * half;
    }
}

template <class V, int Bits, int T>
void unpacked_tile(const uint8_t* codes, const float* scales, int64_t group, int64_t blocks, const Activations& a,
                   int64_t row, int64_t at, float* out, int64_t stride, bool fresh) {
    typename V::Floats acc[T];
    for (int t = 0; t < T; ++t) acc[t] = fresh ? V::floats(0) : V::load(out + t * stride);
    const int64_t parts = group / 32;
    for (int64_t b = 0; b < blocks; ++b) {
        const uint8_t* c = codes + 512 * b;
        block<V, Bits, T>([c](int j) { return V::bytes(c + 64 * j); }, V::load(scales + 16 * (b / parts)), a, row, at + b, acc);
    }
    for (int t = 0; t < T; ++t) V::store(out + t * stride, acc[t]);
}


// The same for two panels. Every result is made of the same operations in the same order as that of unpacked_tile.
template <class V, int Bits, int T>
void unpacked_pair(const uint8_t* codes, const float* scales, int64_t panel_codes, int64_t panel_scales, int64_t group,
                   int64_t blocks, const Activations& a, int64_t row, int64_t at, float* out, int64_t stride, bool fresh) {
    const int64_t parts = group / 32;
    typename V::Floats acc[2][T];
    for (int p = 0; p < 2; ++p)
        for (int t = 0; t < T; ++t) acc[p][t] = fresh ? V::floats(0) : V::load(out + t * stride + 16 * p);
    for (int64_t b = 0; b < blocks; ++b) {
        const uint8_t* c = codes + 512 * b;
        const float* of = scales + 16 * (b / parts);
        const typename V::Floats scale[2] = {V::load(of), V::load(of + panel_scales)};
        block_pair<V, Bits, T>([c, panel_codes](int p, int j) { return V::bytes(c + p * panel_codes + 64 * j); }, scale, a, row,
                               at + b, acc);
    }
    for (int p = 0; p < 2; ++p)
        for (int t = 0; t < T; ++t) V::store(out + t * stride + 16 * p, acc[p][t]);
}

template <class V, int Bits, int T>
void pair_tile(int count, const uint8_t* codes, const float* scales, int64_t panel_codes, int64_t panel_scales, int64_t group,
               int64_t blocks, const Activations& a, int64_t row, int64_t at, float* out, int64_t stride, bool fresh) {
    if constexpr (T == 0) return;
    else if (count == T)
        unpacked_pair<V, Bits, T>(codes, scales, panel_codes, panel_scales, group, blocks, a, row, at, out, stride, fresh);
    else pair_tile<V, Bits, T - 1>(count, codes, scales, panel_codes, panel_scales, group, blocks, a, row, at, out, stride, fresh);
}

template <class V, int Bits, int T>
void many_tile(int count, const uint8_t* codes, const float* scales, int64_t group, int64_t blocks,
               const Activations& a, int64_t row, int64_t at, float* out, int64_t stride, bool fresh) {
    if constexpr (T == 0) return;
    else if (count == T) unpacked_tile<V, Bits, T>(codes, scales, group, blocks, a, row, at, out, stride, fresh);
    else many_tile<V, Bits, T - 1>(count, codes, scales, group, blocks, a, row, at, out, stride, fresh);
}

// Many rows of activations. `scratch` holds scratch_bytes(...) bytes of this thread.
template <class V, int Bits>
void many(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out,
          int64_t stride, int64_t rows, uint8_t* scratch) {
    const int64_t per = 2 * w.group, chunk = most_of(1, kChunk / per), superblocks = w.superblocks();
    uint8_t* codes = scratch;
    float* scales = reinterpret_cast<float*>(codes + kPanels * 16 * chunk * per);
    float* sums = scales + kPanels * 32 * chunk;
    const int64_t width = 16 * kPanels;
    for (int64_t p = first; p < last; p += kPanels) {
        const int64_t panels = least(kPanels, last - p);
        for (int64_t r = 0; r < a.m; r += kRows) {
            const int64_t height = least(kRows, a.m - r);
            for (int64_t s = 0; s < superblocks; s += chunk) {
                const int64_t some = least(chunk, superblocks - s), blocks = some * per / 32;
                // With a single chunk the panels stay unpacked for all rows.
                if (r == 0 || chunk < superblocks)
                    for (int64_t i = 0; i < panels; ++i)
                        unpack<V, Bits>(w, p + i, s, s + some, codes + i * 16 * chunk * per, scales + i * 32 * chunk);
                int64_t paired = 0;
                if constexpr (V::kPairTile > 0) {
                    paired = panels / 2 * 2;
                    for (int64_t t = 0; t < height; t += V::kPairTile)
                        for (int64_t i = 0; i < paired; i += 2)
                            pair_tile<V, Bits, V::kPairTile>(int(least(V::kPairTile, height - t)), codes + i * 16 * chunk * per,
                                                             scales + i * 32 * chunk, 16 * chunk * per, 32 * chunk, w.group, blocks, a,
                                                             r + t, s * per / 32, sums + t * width + 16 * i, width, s == 0);
                }
                for (int64_t t = 0; paired < panels && t < height; t += V::kTile)
                    for (int64_t i = paired; i < panels; ++i)
                        many_tile<V, Bits, V::kTile>(int(least(V::kTile, height - t)), codes + i * 16 * chunk * per,
                                                     scales + i * 32 * chunk, w.group, blocks, a, r + t, s * per / 32,
                                                     sums + t * width + 16 * i, width, s == 0);
            }
            for (int64_t t = 0; t < height; ++t)
                for (int64_t i = 0; i < panels; ++i)
                    finish<V>(V::load(sums + t * width + 16 * i), bias, out + (r + t) * stride, p + i, rows);
        }
    }
}

// From this many rows of activations on, unpacking first is faster.
constexpr int64_t kMany = 24;
constexpr int64_t kStream = 12;

// out (m, rows) = a W^T + bias for the panels `first` to `last`; `rows` is the width without padding.
template <class V, int Bits>
void linear(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out,
            int64_t stride, int64_t rows, uint8_t* scratch) {
    if (a.m >= kMany) {
        many<V, Bits>(w, a, first, last, bias, out, stride, rows, scratch);
        return;
    }
    if constexpr (V::kPairTile > 0) {  // above kStream rows the multipliers are the limit, and not the memory
        const int64_t tiles = (a.m + V::kPairTile - 1) / V::kPairTile, some = (a.m + tiles - 1) / tiles;
        if (a.m > kStream)
            for (; first + 2 <= last; first += 2)
                for (int64_t row = 0; row < a.m; row += some)
                    few_pair<V, Bits, V::kPairTile>(least(some, a.m - row), w, a, row, first, bias, out, stride, rows);
    }
    for (int64_t panel = first; panel < last; ++panel)  // which comes from memory once, for all rows
        for (int64_t row = 0; row < a.m; row += V::kTile)
            few<V, Bits, V::kTile>(least(V::kTile, a.m - row), w, a, row, panel, bias, out, stride, rows);
}

// Where the quantised activations of `m` rows lie in a scratch buffer: codes, scales, sums.
Activations activations_in(uint8_t* scratch, int64_t m, int64_t k) {
    const int64_t codes = (m * k + 63) / 64 * 64, scales = (m * k / 32 * 4 + 63) / 64 * 64;
    return {reinterpret_cast<int8_t*>(scratch), reinterpret_cast<float*>(scratch + codes),
            reinterpret_cast<int32_t*>(scratch + codes + scales), m, k};
}

// A product with activations that are quantised already: some panels at a time, of 64 KiB or more.
template <class V>
void product(const Packed& w, const Activations& a, float* out, int64_t stride, uint8_t* scratch, const Team& team, int phase) {
    const int64_t some = a.m >= kMany ? kPanels : (65536 / w.panel_bytes() + 2) / 2 * 2;
    in_turns(team, phase, size_t(w.panels()), size_t(some), [&](size_t begin, size_t end) {
        const int64_t first = int64_t(begin), last = int64_t(end);
        if (w.bits == 4) linear<V, 4>(w, a, first, last, w.bias, out, stride, w.rows, scratch);
        else linear<V, 8>(w, a, first, last, w.bias, out, stride, w.rows, scratch);
    });
}

// Few rows are quantised by every thread for itself, which is quicker than to wait for each other.
constexpr int64_t kAlone = 2;

template <class V>
void linear_kernel(const LinearArguments& arg, const Team& team) {
    const Packed& w = arg.weight;
    uint8_t* own = arg.scratch + scratch_of_thread() * team.thread;
    const bool alone = arg.m <= kAlone;
    const Activations a = activations_in(alone ? own : arg.scratch + scratch_of_thread() * team.count, arg.m, w.k_padded);
    if (alone) quantise_rows<V>(arg.x, arg.x_stride, w.k, a, 0, arg.m);
    else {
        const Share rows = share(team, size_t(arg.m), 1);
        quantise_rows<V>(arg.x, arg.x_stride, w.k, a, int64_t(rows.begin), int64_t(rows.end));
        barrier(team);
    }
    product<V>(w, a, arg.out, arg.out_stride, own, team, 0);
}

// fc2(up * silu(gate)) with [gate, up] = fc1(x), the gated values quantised as they are made.
template <class V>
void mlp_kernel(const MlpArguments& arg, const Team& team) {
    const Packed &w = arg.fc1, &w2 = arg.fc2;
    const int64_t inner = w.rows / 2;
    uint8_t* own = arg.scratch + scratch_of_thread() * team.thread;
    uint8_t* common = arg.scratch + scratch_of_thread() * team.count;
    const bool alone = arg.m <= kAlone;
    const Activations a = activations_in(alone ? own : common, arg.m, w.k_padded);
    float* wide = reinterpret_cast<float*>(common + activation_bytes(arg.m, w.k_padded));
    const Activations gated = activations_in(reinterpret_cast<uint8_t*>(wide) + (arg.m * w.rows * 4 + 63) / 64 * 64, arg.m, w2.k_padded);
    if (alone) quantise_rows<V>(arg.x, arg.x_stride, w.k, a, 0, arg.m);
    else {
        const Share rows = share(team, size_t(arg.m), 1);
        quantise_rows<V>(arg.x, arg.x_stride, w.k, a, int64_t(rows.begin), int64_t(rows.end));
        barrier(team);
    }
    product<V>(w, a, wide, w.rows, own, team, 0);
    barrier(team);
    const int64_t blocks = w2.k_padded / 32;
    const Share mine = share(team, size_t(arg.m * blocks), 1);
    for (int64_t item = int64_t(mine.begin); item < int64_t(mine.end); ++item) {
        const int64_t row = item / blocks, at = item % blocks;
        const float *gate = wide + row * w.rows + 32 * at, *up = gate + inner;
        const int64_t count = least(32, inner - 32 * at);
        float values[32] = {};
        for (int64_t e = 0; e < count; e += 16)
            V::store(values + e, V::mul(some<V>(up + e, count - e), silu<V>(some<V>(gate + e, count - e))));
        gated.scales[item] = V::quantise32(values, gated.codes + row * w2.k_padded + 32 * at, gated.sums + item);
    }
    barrier(team);
    product<V>(w2, gated, arg.out, arg.out_stride, own, team, 1);
}

// Rows of a quantised matrix in float32: the embedding of tokens.
template <class V>
void rows_kernel(const RowsArguments& arg, const Team& team) {
    const Packed& w = arg.weight;
    const Share mine = share(team, size_t(arg.count), 1);
    for (size_t i = mine.begin; i < mine.end; ++i) {
        const int64_t row = arg.rows[i], lane = row % 16;
        const uint8_t* p = w.data + row / 16 * w.panel_bytes();
        float* out = arg.out + int64_t(i) * w.k;
        for (int64_t s = 0; s < w.superblocks(); ++s, p += w.superblock_bytes()) {
            float scales[32];
            V::store(scales, V::halves(p));
            V::store(scales + 16, V::halves(p + 32));
            for (int64_t j = 0; j < 2 * w.group; ++j) {
                const int64_t at = s * 2 * w.group + j, half = j / w.group;
                if (at >= w.k) break;
                int32_t code;
                if (w.bits == 8) code = int32_t(p[64 + j / 4 * 64 + lane * 4 + j % 4]) - 128;
                else {
                    const int64_t e = j % w.group;
                    const uint8_t both = p[64 + e / 4 * 64 + lane * 4 + e % 4];
                    code = int32_t(half ? both >> 4 : both & 15) - 8;
                }
                out[at] = float(code) * scales[half * 16 + lane];
            }
        }
    }
}

}  // namespace
}  // namespace sambay
