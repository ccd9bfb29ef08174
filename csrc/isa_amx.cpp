// AMX tiles: products of many rows; the rest comes from AVX-512.
#include <immintrin.h>

#include "kernels/linear_tiles.h"

namespace sambay {

const KernelTable* table_amx() {
    using V = Tiled<HardwareTiles>;
    static constexpr KernelTable table = {.linear = linear_kernel<V>, .mlp = mlp_kernel<V>};
    return &table;
}

}  // namespace sambay
