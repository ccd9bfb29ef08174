// AMX tiles: products of many rows; the rest comes from AVX-512.
#include <immintrin.h>

#include "kernels/linear_tiles.h"

namespace sambay {

const KernelTable* table_amx() {
    static constexpr KernelTable table = {.linear = linear_kernel<VTiles>, .mlp = mlp_kernel<VTiles>};
    return &table;
}

}  // namespace sambay
