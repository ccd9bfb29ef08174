// AMX tiles: what only they do better; the rest comes from AVX-512.
// GCC 12 drops stores that only `ldtilecfg` or `tileloadd` read: asm volatile("" ::: "memory") before each of them.
#include "kernel_table.h"

namespace sambay {

const KernelTable* table_amx() {
    static constexpr KernelTable table = {};
    return &table;
}

}  // namespace sambay
