// Reading memory as fast as it goes, for `sambay bench machine`: the bound that decoding is held against.
//
// One sequential stream per thread, each line prefetched kAhead bytes before it is wanted: the hardware prefetcher stops
// at page ends, and what limits a core is how many misses it has under way.
#pragma once

#include "kernel_table.h"

namespace sambay {
namespace {

// V: a cache line as a vector of 64-bit words, with zero(), add(sum, line at p) and total(sum).
template <class V>
uint64_t read_sum(const uint64_t* words, size_t count, const Team& team) {
    constexpr size_t kLine = 8, kAhead = 2048 / sizeof(uint64_t);  // in words
    const Share mine = share(team, count, 4 * kLine);
    const uint64_t *p = words + mine.begin, *const end = words + mine.end;
    typename V::Line a = V::zero(), b = V::zero(), c = V::zero(), d = V::zero();
    for (; size_t(end - p) >= 4 * kLine; p += 4 * kLine) {
        __builtin_prefetch(p + kAhead);
        __builtin_prefetch(p + kAhead + kLine);
        __builtin_prefetch(p + kAhead + 2 * kLine);
        __builtin_prefetch(p + kAhead + 3 * kLine);
        a = V::add(a, p);
        b = V::add(b, p + kLine);
        c = V::add(c, p + 2 * kLine);
        d = V::add(d, p + 3 * kLine);
    }
    uint64_t sum = V::total(a) + V::total(b) + V::total(c) + V::total(d);
    for (; p < end; ++p) sum += *p;
    return sum;
}

}  // namespace
}  // namespace sambay
