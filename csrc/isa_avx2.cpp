// AVX2, FMA, F16C.
#include <immintrin.h>

#include "byte_products.h"
#include "kernels/table.h"
#include "kernels/vec_avx2.h"
#include "read_sum.h"

namespace sambay {
namespace {

struct Words {
    struct Line { __m256i low, high; };
    static Line zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static Line add(Line sum, const uint64_t* p) {
        const auto* at = reinterpret_cast<const __m256i*>(p);
        return {_mm256_add_epi64(sum.low, _mm256_loadu_si256(at)),
                _mm256_add_epi64(sum.high, _mm256_loadu_si256(at + 1))};
    }
    static uint64_t total(Line sum) {
        const __m256i both = _mm256_add_epi64(sum.low, sum.high);
        const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        return uint64_t(_mm_cvtsi128_si64(half)) + uint64_t(_mm_extract_epi64(half, 1));
    }
};

}  // namespace

const KernelTable* table_avx2() {
    static constexpr KernelTable table = {.read_sum = read_sum<Words>,
                                         .byte_products = byte_products<VAvx2>,
                                         SAMBAY_TEMPLATE_KERNELS(VAvx2)};
    return &table;
}

}  // namespace sambay
