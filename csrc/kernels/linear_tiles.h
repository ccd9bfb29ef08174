// Products with a quantised matrix on tiles, from nine rows of activations on.
//
// Integers, in blocks of 32: both sides have a scale for every block of 32 k, so that a tile can add up no more than
// that. Sixteen rows of a block and a panel then take the tile unit 16 cycles, and the vectors about 30 to read, convert,
// scale and add what it found (60 loads and 48 operations, two of each a cycle; they overlap), where AVX-512 VNNI needs 88.
// And they give the same to the bit: a row's results still do not depend on how many rows stand beside it. Nested scales
// (linear_nested.h) leave blocks of 128: a quarter of those loads and operations, and two products of 64 k in the place of
// four of 32. bfloat16 tiles have no such tail, but two bytes a weight, half the rate, and they round (2e-3 to 3e-3).
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
    struct SignedNested : VAvx512 {
        static Bytes expand(Bytes u, Expander e) { return Signed::whole(VAvx512::expand(u, e)); }
    };
};

constexpr int64_t kTileHeight = 16;
constexpr int64_t kTileChunk = 1024;  // k at a time: a panel's codes, and those of sixteen rows, fit into the first-level cache

// What one product of tiles takes, and the products that make a block.
template <int Bits>
constexpr int kTileDepth = Bits == kNested ? 64 : 32;
template <int Bits>
constexpr int kTileProducts = Bits == kNested ? 2 : 1;

// Blocks `b` to b + N of one panel and a tile of rows: sums of products, in C tiles 0 to N - 1.
template <int Bits, int N, int At = 0>
inline void multiply_blocks(Tiles& tiles, const int8_t* codes, int64_t stride, const uint8_t* weights) {
    constexpr int kDepth = kTileDepth<Bits>, kProducts = kTileProducts<Bits>;
    if constexpr (At < N * kProducts) {
        constexpr int kA = 4 + At % 2, kB = 6 + At % 2, kC = At / kProducts;
        if constexpr (At % kProducts == 0) tiles.zero<kC>();
        tiles.load<kA>(codes + kDepth * At, stride);
        tiles.load<kB>(weights + 16 * kDepth * At, 64);
        tiles.multiply<kC, kA, kB>();
        multiply_blocks<Bits, N, At + 1>(tiles, codes, stride, weights);
    }
}

template <int N, int At = 0>
inline void store_blocks(Tiles& tiles, int32_t (*found)[256]) {
    if constexpr (At < N) {
        tiles.store<At>(found[At], 64);
        store_blocks<N, At + 1>(tiles, found);
    }
}

// `height` rows of activations and one unpacked panel: their products are added to `sums`, which has rows of 16 * kPanels.
template <class V, int Bits>
[[gnu::noinline]] void tile_of_rows(Tiles& tiles, int64_t height, const Unpacked& w, const Activations& a, int64_t row, int64_t at,
                                    float* sums, bool fresh, Lines lines) {
    constexpr int64_t width = 16 * kPanels;
    alignas(64) int32_t found[4][256];
    for (int64_t r = 0; fresh && r < height; ++r) V::store(sums + r * width, V::floats(0));
    constexpr int64_t kDepth = kTileDepth<Bits> * kTileProducts<Bits>;
    const int64_t parts = w.group / kDepth, blocks = w.groups * parts;
    const auto multiply = [&](int64_t b) {  // there is always an even number of blocks
        const int8_t* codes = a.codes + row * a.k + kDepth * (at + b);
        if (b + 4 <= blocks) multiply_blocks<Bits, 4>(tiles, codes, a.k, w.codes + 16 * kDepth * b);
        else if (b < blocks) multiply_blocks<Bits, 2>(tiles, codes, a.k, w.codes + 16 * kDepth * b);
    };
    int64_t group = 0, part = 0;
    const auto add = [&](auto count, int64_t b) {
        constexpr int N = decltype(count)::value;
        typename V::Floats scale[N];
        const float* scales[N];
        for (int i = 0; i < N; ++i) {
            lines.step();
            scale[i] = V::load(w.scales + 16 * group);
            if (++part == parts) part = 0, ++group;
            scales[i] = a.scales + (at + b + i) * a.m + row;
        }
        for (int64_t r = 0; r < height; ++r) {
            auto sum = V::load(sums + r * width);
            for (int i = 0; i < N; ++i)  // as in `block`
                sum = V::fma(V::to_floats(V::load(found[i] + 16 * r)), V::mul(scale[i], V::floats(scales[i][r])), sum);
            V::store(sums + r * width, sum);
        }
    };
    multiply(0);
    for (int64_t b = 0; b < blocks; b += 4) {
        const bool four = b + 4 <= blocks;
        if (four) store_blocks<4>(tiles, found);
        else store_blocks<2>(tiles, found);
        multiply(b + 4);  // the tile unit has work while the vectors scale and add what it found before
        if (four) add(std::integral_constant<int, 4>(), b);
        else add(std::integral_constant<int, 2>(), b);
    }
}

// As `many` of linear.h.
template <class V, int Bits>
void tiled(const Packed& w, const Activations& a, int64_t first, int64_t last, const float* bias, float* out, int64_t stride,
           int64_t rows, uint8_t* scratch) {
    const int64_t per = w.width(), chunk = most_of(1, kTileChunk / per), superblocks = w.superblocks();
    using Signed = std::conditional_t<Bits == kNested, typename V::SignedNested, typename V::Signed>;
    uint8_t* codes = scratch;
    float* scales = reinterpret_cast<float*>(codes + kPanels * 16 * chunk * per);
    constexpr int64_t floats = kScaleFloats<V, Bits>;
    float* sums = scales + kPanels * floats * chunk;
    constexpr int64_t width = 16 * kPanels, together = kRows / kTileHeight;
    // All tiles have one height, and so one configuration: the last begins early and repeats rows of the one before.
    const int64_t count = (a.m + kTileHeight - 1) / kTileHeight, height = (a.m + count - 1) / count;
    const auto row_of = [&](int64_t tile) { return least(tile * height, a.m - height); };
    Tiles tiles{int(height), kTileDepth<Bits>};
    for (int64_t p = first; p < last; p += kPanels) {
        const int64_t panels = least(kPanels, last - p);
        for (int64_t begin = 0; begin < count; begin += together) {
            const int64_t some = least(together, count - begin);
            for (int64_t s = 0; s < superblocks; s += chunk) {
                const int64_t depth = least(chunk, superblocks - s);
                if (begin == 0 || chunk < superblocks)
                    for (int64_t i = 0; i < panels; ++i)
                        unpack<Signed, Bits>(w, p + i, s, s + depth, codes + i * 16 * chunk * per, scales + i * floats * chunk);
                for (int64_t i = 0; i < panels; ++i)
                    for (int64_t t = 0; t < some; ++t) {
                        const Unpacked panel{codes + i * 16 * chunk * per, scales + i * floats * chunk, 0, 0, Bits == kNested ? per : w.group, Bits == kNested ? depth : 2 * depth};
                        const Lines lines = next_lines(w, p + i, last, s, chunk, 1, t, some);
                        tile_of_rows<V, Bits>(tiles, height, panel, a, row_of(begin + t), s * per / a.block,
                                        sums + t * height * width + 16 * i, s == 0, lines);
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
