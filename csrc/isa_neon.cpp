// 64-bit Arm with dot products and half floats (Armv8.2).
#include <arm_neon.h>

#include "byte_products.h"
#include "kernels/table.h"
#include "kernels/vec_neon.h"
#include "read_sum.h"

namespace sambay {
namespace {

struct Words {
    struct Line { uint64x2_t at[4]; };
    static Line zero() { return {{vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0)}}; }
    static Line add(Line sum, const uint64_t* p) {
        for (int i = 0; i < 4; ++i) sum.at[i] = vaddq_u64(sum.at[i], vld1q_u64(p + 2 * i));
        return sum;
    }
    static uint64_t total(Line sum) {
        return vaddvq_u64(vaddq_u64(vaddq_u64(sum.at[0], sum.at[1]), vaddq_u64(sum.at[2], sum.at[3])));
    }
};

}  // namespace

const KernelTable* table_neon() {
    static constexpr KernelTable table = {.read_sum = read_sum<Words>,
                                         .byte_products = byte_products<VNeon>,
                                         SAMBAY_TEMPLATE_KERNELS(VNeon)};
    return &table;
}

}  // namespace sambay
