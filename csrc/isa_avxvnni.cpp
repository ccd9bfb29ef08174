// AVX-VNNI: what multiplies bytes; the rest comes from AVX2.
#include <immintrin.h>

#include "byte_products.h"
#include "kernels/table.h"
#include "kernels/vec_avxvnni.h"

namespace sambay {

const KernelTable* table_avxvnni() {
    static constexpr KernelTable table = {.byte_products = byte_products<VAvxVnni>,
                                         .linear = linear_kernel<VAvxVnni>,
                                         .mlp = mlp_kernel<VAvxVnni>,
                                         .window_attention = window_kernel<VAvxVnni>,
                                         .shared_attention = shared_kernel<VAvxVnni>};
    return &table;
}

}  // namespace sambay
