// AMX tiles: products of many rows; the rest comes from AVX-512.
#include <immintrin.h>

#include "byte_products.h"
#include "kernels/linear_tiles.h"

namespace sambay {
namespace {

int64_t byte_products_tiles(const uint8_t* b, const int8_t* a, size_t count, const Team&) {
    Tiles tiles(16, kProductWidth);
    tiles.zero<0>(), tiles.zero<1>(), tiles.zero<2>(), tiles.zero<3>();
    for (size_t n = 0; n < count; ++n) {
        tiles.load<4>(a, kProductWidth);
        tiles.load<6>(b, 64);
        tiles.load<7>(b + 1024, 64);
        tiles.load<5>(a + 16 * kProductWidth, kProductWidth);
        tiles.multiply<0, 4, 6>();
        tiles.multiply<1, 4, 7>();
        tiles.multiply<2, 5, 6>();
        tiles.multiply<3, 5, 7>();
    }
    int32_t found[4][256];
    tiles.store<0>(found[0], 64), tiles.store<1>(found[1], 64), tiles.store<2>(found[2], 64), tiles.store<3>(found[3], 64);
    int64_t all = 0;
    for (const auto& tile : found)
        for (int32_t one : tile) all += one;
    return all;
}

}  // namespace

const KernelTable* table_amx() {
    static constexpr KernelTable table = {
        .byte_products = byte_products_tiles, .linear = linear_kernel<VTiles>, .mlp = mlp_kernel<VTiles>};
    return &table;
}

}  // namespace sambay
