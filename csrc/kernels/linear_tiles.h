// Products with a quantised matrix on tiles, from nine rows of activations on.
//
// Why integers, and why in blocks of 32: every block of 32 k has scales of its own on both sides, so that a tile can add
// up no more than that. Then 16 x 16 results cost 16 cycles of the tile unit, and about 28 to read, convert, scale and
// add their sums (56 loads, 48 vector operations, two of each a cycle), where AVX-512 VNNI needs 88; and what comes out is
// the same to the bit as there, so that a row's results still do not depend on how many rows stand beside it. The
// alternatives: bfloat16 tiles need no scaling, but twice the bytes of weights, and round (2e-3 to 3e-3 beside
// activations in bytes); bytes with a scale for every 128 k or more would reach twice the rate and lose 1.8e-2, or need
// another file format.
#pragma once

#include "linear.h"
#include "tiles.h"
#include "vec_avx512.h"

namespace sambay {
namespace {

struct VTiles : VAvx512 {
    static constexpr bool kTiles = true;
    using VAvx512::load;
    static Ints load(const int32_t* p) { return _mm512_load_si512(p); }

    // Codes without their zero: for `unpack`.
    struct Signed : VAvx512 {
        static Bytes low(Bytes x) { return _mm512_sub_epi8(VAvx512::low(x), _mm512_set1_epi8(8)); }
        static Bytes high(Bytes x) { return _mm512_sub_epi8(VAvx512::high(x), _mm512_set1_epi8(8)); }
        static Bytes six(Bytes both, bool upper, Bytes rest, int at) {
            return _mm512_sub_epi8(VAvx512::six(both, upper, rest, at), _mm512_set1_epi8(32));
        }
        static Bytes whole(Bytes x) { return _mm512_xor_si512(x, _mm512_set1_epi8(-128)); }
    };
};

constexpr int kTileHeight = 16;
constexpr int64_t kTileChunk = 1024;  // k at a time: a panel's codes, and those of sixteen rows, fit into the first-level cache

// `height` rows of activations and one unpacked panel: their products are added to `sums`, which has rows of 16 * kPanels.
// While the tile unit multiplies two blocks, the vectors scale and add those before.
template <class V, int H>
[[gnu::noinline]] void tile_of_rows(Tiles& tiles, const Unpacked& w, const Activations& a, int64_t row, int64_t at,
                                    float* sums, bool fresh, Lines lines) {
    constexpr int64_t width = 16 * kPanels;
    alignas(64) int32_t found[4][16 * H];
    typename V::Floats acc[H];
    for (int r = 0; r < H; ++r) acc[r] = fresh ? V::floats(0) : V::load(sums + r * width);
    const int64_t parts = w.group / 32, blocks = w.groups * parts;

    // Blocks b and b + 1, on the first or second pair of tiles.
    const auto multiply = [&](auto pair, int64_t b) {
        constexpr int kFirst = 2 * decltype(pair)::value;
        const int8_t* codes = a.codes + row * a.k + 32 * (at + b);
        tiles.zero<kFirst>();
        tiles.load<4>(codes, a.k);
        tiles.load<6>(w.codes + 512 * b, 64);
        tiles.multiply<kFirst, 4, 6>();
        tiles.zero<kFirst + 1>();
        tiles.load<5>(codes + 32, a.k);
        tiles.load<7>(w.codes + 512 * b + 512, 64);
        tiles.multiply<kFirst + 1, 5, 7>();
    };
    int64_t group = 0, part = 0;
    const auto add = [&](const int32_t* of, int64_t b) {
        const typename V::Floats scale = V::load(w.scales + 16 * group);
        if (++part == parts) part = 0, ++group;
        lines.step();
        const float* scales = a.scales + (at + b) * a.m + row;
        for (int r = 0; r < H; ++r)  // as in `block`
            acc[r] = V::fma(V::to_floats(V::load(of + 16 * r)), V::mul(scale, V::floats(scales[r])), acc[r]);
    };
    const auto finish_pair = [&](auto pair, int64_t b) {
        constexpr int kFirst = 2 * decltype(pair)::value;
        tiles.store<kFirst>(found[kFirst], 64);
        tiles.store<kFirst + 1>(found[kFirst + 1], 64);
        add(found[kFirst], b);
        add(found[kFirst + 1], b + 1);
    };
    const std::integral_constant<int, 0> first;
    const std::integral_constant<int, 1> second;
    multiply(first, 0);  // there are always two blocks, and an even number of them
    for (int64_t b = 0; b < blocks; b += 4) {
        if (b + 2 < blocks) multiply(second, b + 2);
        finish_pair(first, b);
        if (b + 2 >= blocks) break;
        if (b + 4 < blocks) multiply(first, b + 4);
        finish_pair(second, b + 2);
    }
    for (int r = 0; r < H; ++r) V::store(sums + r * width, acc[r]);
}

// As `many` of linear.h.
template <class V, int Bits>
void tiled(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out, int64_t stride,
           int64_t rows, uint8_t* scratch) {
    const int64_t per = 2 * w.group, chunk = most_of(1, kTileChunk / per), superblocks = w.superblocks();
    uint8_t* codes = scratch;
    float* scales = reinterpret_cast<float*>(codes + kPanels * 16 * chunk * per);
    float* sums = scales + kPanels * 32 * chunk;
    constexpr int64_t width = 16 * kPanels, together = kRows / kTileHeight;
    // All tiles have one height, at least kTiled, and so one configuration: the last begins early and repeats rows of
    // the one before.
    const int64_t count = (a.m + kTileHeight - 1) / kTileHeight, height = (a.m + count - 1) / count;
    const auto row_of = [&](int64_t tile) { return least(tile * height, a.m - height); };
    Tiles tiles{int(height)};
    for (int64_t p = first; p < last; p += kPanels) {
        const int64_t panels = least(kPanels, last - p);
        for (int64_t begin = 0; begin < count; begin += together) {
            const int64_t some = least(together, count - begin);
            for (int64_t s = 0; s < superblocks; s += chunk) {
                const int64_t depth = least(chunk, superblocks - s);
                if (begin == 0 || chunk < superblocks)
                    for (int64_t i = 0; i < panels; ++i)
                        unpack<typename V::Signed, Bits>(w, p + i, s, s + depth, codes + i * 16 * chunk * per, scales + i * 32 * chunk);
                for (int64_t i = 0; i < panels; ++i)
                    for (int64_t t = 0; t < some; ++t) {
                        const Unpacked panel{codes + i * 16 * chunk * per, scales + i * 32 * chunk, 0, 0, w.group, 2 * depth};
                        const Lines lines = next_lines(w, p + i, last, s, chunk, 1, t, some);
                        counted<kTileHeight, kTiled>(height, [&](auto rows_of_tile) {
                            tile_of_rows<V, decltype(rows_of_tile)::value>(tiles, panel, a, row_of(begin + t), s * per / 32,
                                                                           sums + t * height * width + 16 * i, s == 0, lines);
                        });
                    }
            }
            for (int64_t t = 0; t < some; ++t)
                for (int64_t r = 0; r < height; ++r)
                    for (int64_t i = 0; i < panels; ++i)
                        finish<V>(V::load(sums + (t * height + r) * width + 16 * i), bias,
                                  out + (row_of(begin + t) + r) * stride, p + i, rows);
        }
    }
}

}  // namespace
}  // namespace sambay
