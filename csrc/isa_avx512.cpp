// AVX-512 F, BW, VL, DQ and VNNI.
#include <immintrin.h>

#include "byte_products.h"
#include "kernels/table.h"
#include "kernels/vec_avx512.h"
#include "read_sum.h"

namespace sambay {
namespace {

struct Words {
    using Line = __m512i;
    static Line zero() { return _mm512_setzero_si512(); }
    static Line add(Line sum, const uint64_t* p) { return _mm512_add_epi64(sum, _mm512_loadu_si512(p)); }
    static uint64_t total(Line sum) {
        uint64_t words[8], all = 0;  // the compiler's own reduction is a signed one, which must not overflow
        _mm512_storeu_si512(words, sum);
        for (uint64_t word : words) all += word;
        return all;
    }
};

}  // namespace

const KernelTable* table_avx512() {
    static constexpr KernelTable table = {.read_sum = read_sum<Words>,
                                         .byte_products = byte_products<VAvx512>,
                                         SAMBAY_TEMPLATE_KERNELS(VAvx512)};
    return &table;
}

}  // namespace sambay
