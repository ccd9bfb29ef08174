// Multiplying bytes as fast as the machine does it, for `sambay bench machine`: the bound that prompts are held against.
//
// C (32 x 32 int32) += A (32 x 64 signed bytes) B (64 x 32 bytes) again and again: all of it lies in the first cache, and
// sums stay in registers. B is in two panels of 16 columns, each of 16 rows of four consecutive k of every column, as
// packed weights are; its bytes are codes of 4 bits, which every instruction set multiplies without a detour.
#pragma once

#include <cstring>

#include "kernel_table.h"

namespace sambay {
namespace {

constexpr int kProductRows = 32, kProductWidth = 64, kProductPanels = 2;
constexpr double kProductOperations = 2.0 * kProductRows * kProductWidth * 16 * kProductPanels;

// Every thread does all of it `count` times and returns the sum of its C.
template <class V>
int64_t byte_products(const uint8_t* b, const int8_t* a, size_t count, const Team&) {
    constexpr int kQuads = kProductWidth / 4, kTogether = V::kTile >= 8 ? kProductPanels : 1;  // as many sums as registers hold
    int64_t all = 0;
    for (int panel = 0; panel < kProductPanels; panel += kTogether)
        for (int row = 0; row < kProductRows; row += V::kTile) {
            const int8_t* const rows = a + row * kProductWidth;
            typename V::Ints sums[kTogether][V::kTile];
            for (auto& of_panel : sums)
                for (auto& sum : of_panel) sum = V::ints(0);
            for (size_t n = 0; n < count; ++n) {
                asm volatile("" : : : "memory");  // or else the compiler would keep products from one turn to the next
#pragma GCC unroll 4
                for (int quad = 0; quad < kQuads; ++quad) {
                    typename V::Bytes bytes[kTogether];
                    for (int p = 0; p < kTogether; ++p) bytes[p] = V::bytes(b + ((panel + p) * kQuads + quad) * 64);
#pragma GCC unroll 8
                    for (int i = 0; i < V::kTile; ++i) {
                        const auto four = V::four(rows + i * kProductWidth, quad);
                        for (int p = 0; p < kTogether; ++p) sums[p][i] = V::template dot<4>(sums[p][i], bytes[p], four);
                    }
                }
            }
            int32_t lanes[kTogether * V::kTile * 16];
            static_assert(sizeof lanes == sizeof sums);
            std::memcpy(lanes, sums, sizeof lanes);
            for (int32_t lane : lanes) all += lane;
        }
    return all;
}

}  // namespace
}  // namespace sambay
