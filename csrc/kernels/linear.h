// Products with a quantised matrix, for one row of activations to thousands: a template over the vectors of an
// instruction set.
//
// The matrix lies in panels of sixteen rows. A panel is a row of superblocks, each of 2 * group consecutive k:
// 64 bytes of float16 scales (sixteen of the first group, sixteen of the second), then the codes, four
// consecutive k of one row in each 32-bit lane. Four-bit codes of the first group are the low nibbles, those of
// the second the high ones. Codes of six bits have their lower four in the same way, and behind them their upper two:
// of two lines in each line, first and second group of the first, then of the second. A code u stands for
// (u - zero) * scale, with zero = 8, 32 or 128. Four bits in groups of 32 have a layout of their own: linear_nested.h.
//
// Activations are quantised to signed bytes in blocks of 32, each with a scale: products are exact in 32-bit
// integers within a block, and are scaled and added in float32. The zero is taken off in the integers: a sum
// begins at -zero * (sum of the block's activations).
//
// Few rows read the packed codes once and keep everything in registers: bound by memory. Many rows unpack a few
// panels into the second-level cache and run over all activations: bound by the multipliers.
#pragma once

#include "linear_nested.h"

namespace sambay {
namespace {

// One block of 32 k. `Weights(p, j)` gives the codes of the j-th four k of a panel. Every result is made of the same
// operations in the same order, whatever P and T are.
template <class V, int Bits, int P, int T, class Weights>
inline void block(const Weights& weights, const typename V::Floats* scale, const Activations& a, int64_t row, int64_t at,
                  typename V::Floats (*acc)[T]) {
    typename V::Ints sum[P][T];
    const int32_t* starts = a.starts + at * a.m + row;
    for (int t = 0; t < T; ++t)
        for (int p = 0; p < P; ++p) sum[p][t] = V::ints(starts[t]);
    eight_lines<V, Bits, P, T>(weights, a, row, 32 * at, sum);
    const float* scales = a.scales + at * a.m + row;
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t)
            acc[p][t] = V::fma(V::to_floats(sum[p][t]), V::mul(scale[p], V::floats(scales[t])), acc[p][t]);
}

// A superblock of 4 or 6 bits at once, both halves of its nibbles, for rows so few that the sums of both fit into registers:
// each line comes from memory once, in a stream without pauses. Those of the second half wait for their turn to be added.
template <class V, int Bits, int T>
inline void packed_superblock(const uint8_t* data, int64_t group, const Activations& a, int64_t row, int64_t s, typename V::Floats* acc) {
    const int64_t parts = group / 32, at = 2 * s * parts;
    const typename V::Floats scale[2] = {V::halves(data), V::halves(data + 32)};
    const int8_t* codes = a.codes + row * a.k + 32 * at;
    const uint8_t *lines = data + 64, *rest = lines + 16 * group;
    typename V::Floats later[4][T];
    const auto add = [&](int64_t block, int half, int t, typename V::Floats sum) {
        acc[t] = V::fma(sum, V::mul(scale[half], V::floats(a.scales[block * a.m + row + t])), acc[t]);
    };
    fetch_near(data);
    for (int64_t part = 0; part < parts; ++part, lines += 512, rest += 256, codes += 32) {
        typename V::Ints sum[2][T];
        for (int half = 0; half < 2; ++half)
            for (int t = 0; t < T; ++t) sum[half][t] = V::ints(a.starts[(at + half * parts + part) * a.m + row + t]);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
            fetch_near(lines + 64 * j);
            const typename V::Bytes both = V::bytes(lines + 64 * j);
            typename V::Bytes low, high;
            if constexpr (Bits == 4) low = V::low(both), high = V::high(both);
            else {
                if (j % 2 == 0) fetch_near(rest + 32 * j);
                const typename V::Bytes upper = V::bytes(rest + j / 2 * 64);
                low = V::six(both, false, upper, j % 2 * 4), high = V::six(both, true, upper, j % 2 * 4 + 2);
            }
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                sum[0][t] = V::template dot<Bits>(sum[0][t], low, V::four(codes + t * a.k, j));
                sum[1][t] = V::template dot<Bits>(sum[1][t], high, V::four(codes + t * a.k + group, j));
            }
        }
        for (int t = 0; t < T; ++t) {
            add(at + part, 0, t, V::to_floats(sum[0][t]));
            later[part][t] = V::to_floats(sum[1][t]);
        }
    }
    for (int64_t part = 0; part < parts; ++part)
        for (int t = 0; t < T; ++t) add(at + parts + part, 1, t, later[part][t]);
}

// Straight from the packed codes, to `sums` of P x T vectors. One panel reads ahead in its own stream, two in what `lines`
// names. A function of its own: within a larger one GCC keeps sums in memory, and stores take the multipliers' time.
template <class V, int Bits, int P, int T>
[[gnu::noinline]] void packed_tile(const Packed& w, const Activations& a, int64_t row, int64_t panel, Lines& lines, float* sums) {
    const int64_t bytes = w.superblock_bytes(), parts = w.group / 32, panel_bytes = w.panel_bytes();
    const uint8_t* data = w.data + panel * panel_bytes;
    const auto load = [&](const uint8_t* codes, int p, int j) {
        if constexpr (P == 1) return ahead<V>(codes + 64 * j);
        else return V::bytes(codes + p * panel_bytes + 64 * j);
    };
    typename V::Floats acc[P][T];
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t) acc[p][t] = V::floats(0);
    for (int64_t s = 0, end = w.superblocks(); s < end; ++s, data += bytes) {
        if constexpr (P == 1 && T <= V::kBoth && Bits != 8) {
            packed_superblock<V, Bits, T>(data, w.group, a, row, s, acc[0]);
            continue;
        }
        if constexpr (P == 1) fetch(data + kAhead);
        typename V::Floats first[P], second[P];
        for (int p = 0; p < P; ++p) {
            first[p] = V::halves(data + p * panel_bytes);
            second[p] = V::halves(data + p * panel_bytes + 32);
        }
        const int64_t at = s * 2 * parts;
        if constexpr (Bits == 4) {
            // First all low nibbles, then all high ones, in the order of k, as `unpack` lays them out.
            for (int64_t part = 0; part < parts; ++part) {
                if constexpr (P > 1) lines.step();
                const uint8_t* c = data + 64 + 512 * part;
                block<V, 4, P, T>([&, c](int p, int j) { return V::low(load(c, p, j)); }, first, a, row, at + part, acc);
            }
            for (int64_t part = 0; part < parts; ++part) {
                if constexpr (P > 1) lines.step();
                const uint8_t* c = data + 64 + 512 * part;
                block<V, 4, P, T>([&, c](int p, int j) { return V::high(V::bytes(c + p * panel_bytes + 64 * j)); }, second,
                                  a, row, at + parts + part, acc);
            }
        } else if constexpr (Bits == 6) {  // in the same order
            for (int64_t part = 0; part < parts; ++part) {
                if constexpr (P > 1) lines.step();
                const uint8_t *c = data + 64 + 512 * part, *rest = data + 64 + 512 * parts + 256 * part;
                block<V, 6, P, T>([&, c, rest](int p, int j) {
                    return V::six(load(c, p, j), false, load(rest, p, j / 2), j % 2 * 4);
                }, first, a, row, at + part, acc);
            }
            for (int64_t part = 0; part < parts; ++part) {
                if constexpr (P > 1) lines.step();
                const uint8_t *c = data + 64 + 512 * part, *rest = data + 64 + 512 * parts + 256 * part;
                block<V, 6, P, T>([&, c, rest](int p, int j) {
                    return V::six(V::bytes(c + p * panel_bytes + 64 * j), true, V::bytes(rest + p * panel_bytes + j / 2 * 64), j % 2 * 4 + 2);
                }, second, a, row, at + parts + part, acc);
            }
        } else {
            for (int64_t part = 0; part < 2 * parts; ++part) {
                if constexpr (P > 1) lines.step();
                const uint8_t* c = data + 64 + 512 * part;
                block<V, 8, P, T>([&, c](int p, int j) { return V::whole(load(c, p, j)); }, part < parts ? first : second, a, row,
                                  at + part, acc);
            }
        }
    }
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t) V::store(sums + 16 * (p * T + t), acc[p][t]);
}

// All rows of activations and P panels from `panel` on, in tiles of at most T rows.
template <class V, int Bits, int P, int T>
void few(const Packed& w, const Activations& a, int64_t panel, const float* bias, float* out, int64_t stride, int64_t rows) {
    const int64_t tiles = (a.m + T - 1) / T, height = (a.m + tiles - 1) / tiles;
    const uint8_t* next = w.data + (panel + P) * w.panel_bytes();
    const int64_t steps = w.k_padded / block_of(w) * tiles;  // one for every block
    Lines lines{next, next + P * w.panel_bytes(), (P * w.panel_bytes() / 64 + steps - 1) / steps};
    for (int64_t row = 0; row < a.m; row += height)
        counted<T>(least(height, a.m - row), [&](auto count) {
            constexpr int kCount = decltype(count)::value;
            alignas(64) float sums[16 * P * kCount];
            if constexpr (Bits == kNested) nested_tile<V, P, kCount>(w, a, row, panel, lines, sums);
            else packed_tile<V, Bits, P, kCount>(w, a, row, panel, lines, sums);
            for (int p = 0; p < P; ++p)
                for (int t = 0; t < kCount; ++t)
                    finish<V>(V::load(sums + 16 * (p * kCount + t)), bias, out + (row + t) * stride, panel + p, rows);
        });
}

// ---- many rows ---------------------------------------------------------------------------------------------------------

// Unpack superblocks `from` to `to` of a panel: codes of one byte, and scales in float32, in order of k.
template <class V, int Bits>
void unpack(const Packed& w, int64_t panel, int64_t from, int64_t to, uint8_t* codes, float* scales) {
    if constexpr (Bits == kNested) return unpack_nested<V>(w, panel, from, to, codes, scales);
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
        } else if constexpr (Bits == 6) {
            for (int64_t line = 0; line < half; line += 64) {
                const typename V::Bytes both = V::bytes(p + 64 + line), rest = V::bytes(p + 64 + half + line / 128 * 64);
                const int at = int(line / 64 % 2 * 4);
                V::store(codes + line, V::six(both, false, rest, at));
                V::store(codes + half + line, V::six(both, true, rest, at + 2));
            }
        } else {
            for (int64_t line = 0; line < 2 * half; line += 64) V::store(codes + line, V::whole(V::bytes(p + 64 + line)));
        }
        codes += 2 * half;
    }
}

// Floats that go with an unpacked superblock of a panel.
template <class V, int Bits>
constexpr int64_t kScaleFloats = Bits == kNested ? kNestedFloats<V> : 32;

// P unpacked panels, and where they lie: codes and scales, and the distance from one panel to the next.
struct Unpacked {
    const uint8_t* codes;
    const float* scales;
    int64_t codes_step, scales_step;
    int64_t group, groups;
};

// Adds their products with blocks `at` on of the activations to `sums`, which has rows of 16 * kPanels.
template <class V, int Bits, int P, int T>
inline void unpacked_tile(const Unpacked& w, const Activations& a, int64_t row, int64_t at, float* sums, bool fresh, Lines lines) {
    constexpr int64_t width = 16 * kPanels;
    typename V::Floats acc[P][T];
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t) acc[p][t] = fresh ? V::floats(0) : V::load(sums + t * width + 16 * p);
    const uint8_t* c = w.codes;
    const float* scales = w.scales;
    int64_t part = 0;
    for (int64_t b = 0, parts = w.group / 32, blocks = w.groups * parts; b < blocks; ++b, c += 512) {
        if constexpr (P > 1) lines.step();
        typename V::Floats scale[P];
        for (int p = 0; p < P; ++p) scale[p] = V::load(scales + p * w.scales_step);
        if (++part == parts) part = 0, scales += 16;
        block<V, Bits, P, T>([c, &w](int p, int j) { return V::bytes(c + p * w.codes_step + 64 * j); }, scale, a, row, at + b, acc);
    }
    for (int p = 0; p < P; ++p)
        for (int t = 0; t < T; ++t) V::store(sums + t * width + 16 * p, acc[p][t]);
}

// What to ask for during row tile `tile` of `tiles`, on `side` panels from `panel` on, of which superblocks `from` on are
// unpacked: the same panels' next chunk, or the first one of those that come kPanels later.
inline Lines next_lines(const Packed& w, int64_t panel, int64_t last, int64_t from, int64_t chunk, int64_t side, int64_t tile,
                        int64_t tiles) {
    const bool more = from + chunk < w.superblocks();
    const int64_t each = (tiles + side - 1) / side, which = panel + tile / each + (more ? 0 : kPanels), at = more ? from + chunk : 0;
    if (which >= last) return {nullptr, nullptr, 0};
    const int64_t bytes = least(chunk, w.superblocks() - at) * w.superblock_bytes(), share = (bytes / 64 + each - 1) / each * 64;
    const int64_t begin = tile % each * share, steps = chunk * w.width() / block_of(w);
    const uint8_t* next = w.data + which * w.panel_bytes() + at * w.superblock_bytes();
    return {next + least(begin, bytes), next + least(begin + share, bytes), (share / 64 + steps - 1) / steps};
}

// Rows of activations in a tile of many.
template <class V, int Bits>
constexpr int kManyTile = V::kPairTile > 0 ? V::kPairTile : V::kTile;
template <class V>
    requires requires { V::kExpandedTile; }
constexpr int kManyTile<V, kNested> = V::kExpandedTile;

// Many rows of activations. `scratch` is what scratch_of_thread() counts.
template <class V, int Bits>
void many(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out,
          int64_t stride, int64_t rows, uint8_t* scratch) {
    constexpr int kSide = V::kPairTile > 0 ? 2 : 1;
    constexpr int kTile = kManyTile<V, Bits>;
    const int64_t per = w.width(), chunk = most_of(1, kChunk / per), superblocks = w.superblocks();
    uint8_t* codes = scratch;
    float* scales = reinterpret_cast<float*>(codes + kPanels * 16 * chunk * per);
    constexpr int64_t floats = kScaleFloats<V, Bits>;
    float* sums = scales + kPanels * floats * chunk;
    const int64_t width = 16 * kPanels;
    for (int64_t p = first; p < last; p += kPanels) {
        const int64_t panels = least(kPanels, last - p);
        for (int64_t r = 0; r < a.m; r += kRows) {
            const int64_t height = least(kRows, a.m - r), tiles = (height + kTile - 1) / kTile;
            for (int64_t s = 0; s < superblocks; s += chunk) {
                const int64_t some = least(chunk, superblocks - s);
                // With a single chunk the panels stay unpacked for all rows.
                if (r == 0 || chunk < superblocks)
                    for (int64_t i = 0; i < panels; ++i)
                        unpack<V, Bits>(w, p + i, s, s + some, codes + i * 16 * chunk * per, scales + i * floats * chunk);
                const auto tile = [&](auto side, int64_t i, int64_t t) {
                    constexpr int P = decltype(side)::value;
                    const Unpacked at{codes + i * 16 * chunk * per, scales + i * floats * chunk, 16 * chunk * per, floats * chunk,
                                      w.group, 2 * some};
                    const Lines lines = next_lines(w, p + i, last, s, chunk, P, t / kTile, tiles);
                    float* to = sums + t * width + 16 * i;
                    counted<kTile>(least(kTile, height - t), [&](auto count) {
                        constexpr int T = decltype(count)::value;
                        if constexpr (Bits == kNested)
                            unpacked_nested_tile<V, P, T>(at.codes, at.codes_step, at.scales, at.scales_step, some, a, r + t,
                                                          s * per / 128, to, s == 0, lines);
                        else unpacked_tile<V, Bits, P, T>(at, a, r + t, s * per / 32, to, s == 0, lines);
                    });
                };
                for (int64_t t = 0; t < height; t += kTile) {
                    int64_t i = 0;
                    for (; i + kSide <= panels; i += kSide) tile(std::integral_constant<int, kSide>(), i, t);
                    for (; i < panels; ++i) tile(std::integral_constant<int, 1>(), i, t);
                }
            }
            for (int64_t t = 0; t < height; ++t)
                for (int64_t i = 0; i < panels; ++i)
                    finish<V>(V::load(sums + t * width + 16 * i), bias, out + (r + t) * stride, p + i, rows);
        }
    }
}

// ---- kernels -----------------------------------------------------------------------------------------------------------

// From so many rows of activations on: two panels at a time, since multipliers are the limit and not memory; tiles, where
// there are any (linear_tiles.h); and unpacking first, which pays later where two panels share an activation.
constexpr int64_t kTiled = 9;
template <int Bits>
constexpr int64_t kPaired = Bits == kNested ? 9 : 5;
template <class V, int Bits>
constexpr int kPairFew = Bits == kNested ? 5 : V::kPairTile;  // rows of such a tile: nested scales hold factors, too
template <class V, int Bits>
constexpr int64_t kMany = V::kPairTile > 0 ? (Bits == kNested ? 33 : 64) : 24;

template <class V, int Bits>
void tiled(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out, int64_t stride,
           int64_t rows, uint8_t* scratch);

// out (m, rows) = a W^T + bias for the panels `first` to `last`; `rows` is the width without padding.
template <class V, int Bits>
void linear(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out,
            int64_t stride, int64_t rows, uint8_t* scratch) {
    if (!a.m) return;
    if constexpr (requires { V::kTiles; })
        if (a.m >= kTiled) return tiled<V, Bits>(w, a, first, last, bias, out, stride, rows, scratch);
    if (a.m >= kMany<V, Bits>) return many<V, Bits>(w, a, first, last, bias, out, stride, rows, scratch);
    if constexpr (V::kPairTile > 0)
        if (a.m >= kPaired<Bits>)
            for (; first + 2 <= last; first += 2) few<V, Bits, 2, kPairFew<V, Bits>>(w, a, first, bias, out, stride, rows);
    for (; first < last; ++first)  // a panel comes from memory once, for all rows
        few<V, Bits, 1, V::kTile>(w, a, first, bias, out, stride, rows);
}

// Where the activations of `m` rows, quantised for a matrix, lie in a scratch buffer: codes, scales, starts. Long blocks
// leave three quarters of what the scales may take.
Activations activations_in(uint8_t* scratch, int64_t m, const Packed& w) {
    const int64_t k = w.k_padded, block = block_of(w), codes = (m * k + 63) / 64 * 64, scales = (m * k / 32 * 4 + 63) / 64 * 64;
    float* first = reinterpret_cast<float*>(scratch + codes);
    return {reinterpret_cast<int8_t*>(scratch), first, reinterpret_cast<int32_t*>(scratch + codes + scales),
            reinterpret_cast<int32_t*>(first + m * (k / block)), m, k, block};
}

// f with the kind of a matrix as a constant.
template <class F>
void kind_of(const Packed& w, const F& f) {
    if (w.nested()) f(std::integral_constant<int, kNested>());
    else if (w.bits == 4) f(std::integral_constant<int, 4>());
    else if (w.bits == 6) f(std::integral_constant<int, 6>());
    else f(std::integral_constant<int, 8>());
}

// A product with activations that are quantised already: some panels at a time, of 64 KiB or more.
template <class V>
void product(const Packed& w, const Activations& a, float* out, int64_t stride, uint8_t* scratch, const Team& team, int phase) {
    kind_of(w, [&](auto kind) {
        constexpr int Bits = decltype(kind)::value;
        bool unpacks = a.m >= kMany<V, Bits>;
        if constexpr (requires { V::kTiles; }) unpacks = a.m >= kTiled;
        const int64_t some = unpacks ? kPanels : (65536 / w.panel_bytes() + 2) / 2 * 2;
        in_turns(team, phase, size_t(w.panels()), size_t(some), [&](size_t begin, size_t end) {
            linear<V, Bits>(w, a, int64_t(begin), int64_t(end), w.bias, out, stride, w.rows, scratch);
        });
    });
}

// Few rows are quantised by every thread for itself, which is quicker than to wait for each other.
constexpr int64_t kAlone = 2;

template <class V>
void linear_kernel(const LinearArguments& arg, const Team& team) {
    const Packed& w = arg.weight;
    uint8_t* own = arg.scratch + scratch_of_thread() * team.thread;
    const bool alone = arg.m <= kAlone;
    const Activations a = activations_in(alone ? own : arg.scratch + scratch_of_thread() * team.count, arg.m, w);
    if (alone) quantise_rows<V>(arg.x, arg.x_stride, w.k, a, zero_of<V>(w), 0, arg.m);
    else {
        const Share rows = share(team, size_t(arg.m), 1);
        quantise_rows<V>(arg.x, arg.x_stride, w.k, a, zero_of<V>(w), int64_t(rows.begin), int64_t(rows.end));
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
    const Activations a = activations_in(alone ? own : common, arg.m, w);
    float* wide = reinterpret_cast<float*>(common + activation_bytes(arg.m, w.k_padded));
    const Activations gated = activations_in(reinterpret_cast<uint8_t*>(wide) + (arg.m * w.rows * 4 + 63) / 64 * 64, arg.m, w2);
    if (alone) quantise_rows<V>(arg.x, arg.x_stride, w.k, a, zero_of<V>(w), 0, arg.m);
    else {
        const Share rows = share(team, size_t(arg.m), 1);
        quantise_rows<V>(arg.x, arg.x_stride, w.k, a, zero_of<V>(w), int64_t(rows.begin), int64_t(rows.end));
        barrier(team);
    }
    product<V>(w, a, wide, w.rows, own, team, 0);
    barrier(team);
    const int64_t block = gated.block, blocks = w2.k_padded / block;
    const Share mine = share(team, size_t(arg.m * blocks), 1);
    for (int64_t item = int64_t(mine.begin); item < int64_t(mine.end); ++item) {
        const int64_t row = item / blocks, at = item % blocks;
        const float *gate = wide + row * w.rows + block * at, *up = gate + inner;
        const int64_t count = least(block, inner - block * at);
        float values[128] = {};
        for (int64_t e = 0; e < count; e += 16)
            V::store(values + e, V::mul(some<V>(up + e, count - e), silu<V>(some<V>(gate + e, count - e))));
        quantise_block<V>(values, gated, row, at, zero_of<V>(w2));
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
            if (w.nested()) {
                for (int64_t j = 0, count = least(kNestedWidth, w.k - s * kNestedWidth); j < count; ++j) {
                    const int64_t e = j % 128, group = j / 32;
                    const uint8_t both = p[kNestedHeader + e / 4 * 64 + lane * 4 + e % 4];
                    const int m = p[64 + group % 4 * 16 + lane] >> (group / 4 * 4) & 15;
                    const int code = (j < 128 ? both & 15 : both >> 4) - 8;
                    out[s * kNestedWidth + j] = float(p[32 + lane] >> group & 1 ? -code * m : code * m) * scales[lane];
                }
                continue;
            }
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
                    if (w.bits == 6) {
                        const uint8_t rest = p[64 + 16 * w.group + e / 8 * 64 + lane * 4 + e % 4];
                        code += (rest >> (e / 4 % 2 * 4 + half * 2) & 3) * 16 - 24;
                    }
                }
                out[at] = float(code) * scales[half * 16 + lane];
            }
        }
    }
}

}  // namespace
}  // namespace sambay
