// Kernels in plain C++: for every machine, and the reference of the others.
#include "byte_products.h"
#include "kernels/table.h"
#include "kernels/vec_portable.h"
#include "read_sum.h"

namespace sambay {
namespace {

struct Words {
    struct Line { uint64_t at[8]; };
    static Line zero() { return {}; }
    static Line add(Line sum, const uint64_t* p) {
        for (int i = 0; i < 8; ++i) sum.at[i] += p[i];
        return sum;
    }
    static uint64_t total(const Line& sum) {
        uint64_t all = 0;
        for (uint64_t word : sum.at) all += word;
        return all;
    }
};

}  // namespace

const KernelTable* table_portable() {
    static constexpr KernelTable table = {.read_sum = read_sum<Words>,
                                         .byte_products = byte_products<VPortable>,
                                         SAMBAY_TEMPLATE_KERNELS(VPortable)};
    return &table;
}

}  // namespace sambay
