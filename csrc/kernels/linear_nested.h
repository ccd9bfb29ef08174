// Four-bit weights whose scales have two levels: (code - 8) * m * scale, with a whole number m from -15 to 15 for every
// group of 32, and a float16 scale for 256.
//
// A superblock is 256 consecutive k of sixteen rows: 32 bytes of scales; 16 bytes of signs, one for a row, bit g for
// group g; 16 bytes of nothing; 64 bytes of |m|, for q = 0 to 3 and each row that of group q low and of q + 4 high; then
// 32 lines of codes, the first 128 k low and the others high.
//
// (code - 8) * m fits into a byte. Hence many rows of activations meet bytes that have one scale for 128 k and more, as
// the activations have, and a sum of integers is scaled once for 128 products and not for 32. Where few rows would not pay
// for the bytes, or products of bytes are slow (AVX2), m multiplies the sums of 32: in float32, which holds these whole
// numbers exactly. So both ways give the same to the bit.
#pragma once

#include "linear_parts.h"

namespace sambay {
namespace {

constexpr int64_t kNestedHeader = 128, kNestedWidth = 256;

// The m of a group, in float32.
template <class V>
inline typename V::Floats factors(const uint8_t* header, int group) {
    if constexpr (requires { V::factors(header, group); }) return V::factors(header, group);
    else {
        float m[16];
        for (int r = 0; r < 16; ++r) {
            const int size = header[64 + group % 4 * 16 + r] >> (group / 4 * 4) & 15;
            m[r] = float(header[32 + r] >> group & 1 ? -size : size);
        }
        return V::load(m);
    }
}

// One block of 128 k, added to `sums` of P panels, which lie `step` apart, and T rows, which lie `width` apart. `line(p, i)`
// gives line i of the block, `factor(p, o)` the m of its group o.
template <class V, bool Expanded, int P, int T, class Line, class Factor>
inline void nested_block(const Line& line, const Factor& factor, const typename V::Floats* scale, const Activations& a, int64_t row,
                         int64_t at, float* sums, int64_t step, int64_t width, bool fresh) {
    typename V::Ints sum[P][T];
    const auto begin = [&](const int32_t* starts) {
        for (int t = 0; t < T; ++t)
            for (int p = 0; p < P; ++p) sum[p][t] = V::ints(starts[t]);
    };
    const float* scales = a.scales + at * a.m + row;
    const auto end = [&](int p, int t, typename V::Floats whole) {
        float* to = sums + p * step + t * width;
        V::store(to, V::fma(whole, V::mul(scale[p], V::floats(scales[t])), fresh ? V::floats(0) : V::load(to)));
    };
    if constexpr (!Expanded) {
        typename V::Floats part[P][T];
        for (int p = 0; p < P; ++p)
            for (int t = 0; t < T; ++t) part[p][t] = V::floats(0);
        for (int o = 0; o < 4; ++o) {
            typename V::Floats m[P];
            for (int p = 0; p < P; ++p) m[p] = factor(p, o);
            begin(a.starts + (4 * at + o) * a.m + row);
            eight_lines<V, 4, P, T>([&](int p, int j) { return line(p, 8 * o + j); }, a, row, 128 * at + 32 * o, sum);
            for (int p = 0; p < P; ++p)
                for (int t = 0; t < T; ++t) part[p][t] = V::fma(V::to_floats(sum[p][t]), m[p], part[p][t]);
        }
        for (int p = 0; p < P; ++p)
            for (int t = 0; t < T; ++t) end(p, t, part[p][t]);
    } else {
        begin(a.long_starts + at * a.m + row);
        for (int o = 0; o < 4; ++o)
            eight_lines<V, 8, P, T>([&](int p, int j) { return line(p, 8 * o + j); }, a, row, 128 * at + 32 * o, sum);
        for (int p = 0; p < P; ++p)
            for (int t = 0; t < T; ++t) end(p, t, V::to_floats(sum[p][t]));
    }
}

// A superblock at once, both halves of its nibbles, for rows so few that the sums of both fit into registers: each line is
// loaded once, and the sums do not wait for each other. What it adds is what two blocks add.
template <class V, int T>
inline void nested_superblock(const uint8_t* data, const Activations& a, int64_t row, int64_t s, float* sums) {
    typename V::Floats part[2][T];
    for (int half = 0; half < 2; ++half)
        for (int t = 0; t < T; ++t) part[half][t] = V::floats(0);
    const int8_t* codes = a.codes + row * a.k + kNestedWidth * s;
    for (int o = 0; o < 4; ++o) {
        typename V::Ints sum[2][T];
        for (int half = 0; half < 2; ++half)
            for (int t = 0; t < T; ++t) sum[half][t] = V::ints(a.starts[(8 * s + 4 * half + o) * a.m + row + t]);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
            const uint8_t* line = data + kNestedHeader + 64 * (8 * o + j);
            fetch_near(line);
            const typename V::Bytes both = V::bytes(line), low = V::low(both), high = V::high(both);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                sum[0][t] = V::template dot<4>(sum[0][t], low, V::four(codes + t * a.k + 32 * o, j));
                sum[1][t] = V::template dot<4>(sum[1][t], high, V::four(codes + t * a.k + 128 + 32 * o, j));
            }
        }
        for (int half = 0; half < 2; ++half) {
            const typename V::Floats m = factors<V>(data, 4 * half + o);
            for (int t = 0; t < T; ++t) part[half][t] = V::fma(V::to_floats(sum[half][t]), m, part[half][t]);
        }
    }
    const typename V::Floats scale = V::halves(data);
    for (int t = 0; t < T; ++t) {
        typename V::Floats acc = s ? V::load(sums + 16 * t) : V::floats(0);
        for (int half = 0; half < 2; ++half)
            acc = V::fma(part[half][t], V::mul(scale, V::floats(a.scales[(2 * s + half) * a.m + row + t])), acc);
        V::store(sums + 16 * t, acc);
    }
}

// Straight from the packed codes, to `sums` of P x T vectors. One panel reads ahead in its own stream, two in what `lines`
// names. A function of its own, as `packed_tile` of linear.h.
template <class V, int P, int T>
[[gnu::noinline]] void nested_tile(const Packed& w, const Activations& a, int64_t row, int64_t panel, Lines& lines, float* sums) {
    const int64_t panel_bytes = w.panel_bytes();
    const uint8_t* data = w.data + panel * panel_bytes;
    for (int64_t s = 0, end = w.superblocks(); s < end; ++s, data += w.superblock_bytes()) {
        if constexpr (P == 1 && T <= V::kBoth) {
            fetch_near(data);
            fetch_near(data + 64);
            nested_superblock<V, T>(data, a, row, s, sums);
        } else {
            if constexpr (P == 1) {
                fetch(data + kAhead);
                fetch(data + kAhead + 64);
            }
            typename V::Floats scale[P];
            for (int p = 0; p < P; ++p) scale[p] = V::halves(data + p * panel_bytes);
            const uint8_t* codes = data + kNestedHeader;
            if constexpr (P > 1) lines.step();
            nested_block<V, false, P, T>([&](int p, int i) {
                if constexpr (P == 1) return V::low(ahead<V>(codes + 64 * i));
                else return V::low(V::bytes(codes + p * panel_bytes + 64 * i));
            }, [&](int p, int o) { return factors<V>(data + p * panel_bytes, o); }, scale, a, row, 2 * s, sums, 16 * T, 16, s == 0);
            if constexpr (P > 1) lines.step();
            nested_block<V, false, P, T>([&](int p, int i) { return V::high(V::bytes(codes + p * panel_bytes + 64 * i)); },
                                         [&](int p, int o) { return factors<V>(data + p * panel_bytes, 4 + o); }, scale, a, row,
                                         2 * s + 1, sums, 16 * T, 16, false);
        }
    }
}

// Floats that go with an unpacked superblock of a panel: the scales, and every m where the codes stay nibbles.
template <class V>
constexpr int64_t kNestedFloats = V::kExpands ? 16 : 16 + 8 * 16;

// Unpack superblocks `from` to `to` of a panel: codes of one byte in the order of k, and what kNestedFloats counts.
template <class V>
void unpack_nested(const Packed& w, int64_t panel, int64_t from, int64_t to, uint8_t* codes, float* scales) {
    const uint8_t* p = w.data + panel * w.panel_bytes() + from * w.superblock_bytes();
    for (int64_t s = from; s < to; ++s, p += w.superblock_bytes(), codes += 16 * kNestedWidth, scales += kNestedFloats<V>) {
        V::store(scales, V::halves(p));
        const uint8_t* lines = p + kNestedHeader;
        for (int o = 0; o < 4; ++o) {
            const typename V::Floats first = factors<V>(p, o), second = factors<V>(p, 4 + o);
            const auto each = [&](const auto& low, const auto& high) {
                for (int64_t line = 512 * o; line < 512 * (o + 1); line += 64) {
                    const typename V::Bytes both = V::bytes(lines + line);
                    V::store(codes + line, low(V::low(both)));
                    V::store(codes + 2048 + line, high(V::high(both)));
                }
            };
            if constexpr (V::kExpands) {
                const typename V::Expander low = V::expander(first), high = V::expander(second);
                each([&](auto x) { return V::expand(x, low); }, [&](auto x) { return V::expand(x, high); });
            } else {
                V::store(scales + 16 * (1 + o), first);
                V::store(scales + 16 * (5 + o), second);
                each([](auto x) { return x; }, [](auto x) { return x; });
            }
        }
    }
}

// Adds the products of P unpacked panels, `count` superblocks each, with blocks `at` on of the activations to `sums`, which
// has rows of 16 * kPanels.
template <class V, int P, int T>
[[gnu::noinline]] void unpacked_nested_tile(const uint8_t* codes, int64_t codes_step, const float* scales, int64_t scales_step,
                                            int64_t count, const Activations& a, int64_t row, int64_t at, float* sums, bool fresh,
                                            Lines lines) {
    for (int64_t s = 0; s < 2 * count; ++s, codes += 2048) {
        lines.step();
        const float* own = scales + s / 2 * kNestedFloats<V>;
        typename V::Floats scale[P];
        for (int p = 0; p < P; ++p) scale[p] = V::load(own + p * scales_step);
        nested_block<V, V::kExpands, P, T>(
            [&](int p, int i) { return V::bytes(codes + p * codes_step + 64 * i); },
            [&](int p, int o) { return V::load(own + p * scales_step + 16 * (1 + s % 2 * 4 + o)); }, scale, a, row, at + s, sums, 16,
            16 * kPanels, fresh && s == 0);
    }
}

}  // namespace
}  // namespace sambay
