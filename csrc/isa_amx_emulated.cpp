// The kernels of isa_amx.cpp on tiles in software, for tests: built with SAMBAY_TESTS, and taken only where it is forced.
#include <immintrin.h>

#include "kernels/linear_tiles.h"

namespace sambay {

const KernelTable* table_amx_emulated() {
    using V = Tiled<SoftwareTiles>;
    static constexpr KernelTable table = {.linear = linear_kernel<V>, .mlp = mlp_kernel<V>};
    return &table;
}

}  // namespace sambay
