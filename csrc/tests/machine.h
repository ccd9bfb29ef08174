// For kernel_test.cpp: the kernels that measure the machine.
#pragma once

#include "byte_products.h"
#include "compare.h"

namespace sambay {

static void test_read_sum() {
    for (int64_t count : {0, 1, 31, 32, 1000, 4099}) {
        const Buffer<uint64_t> words(count);
        for (int64_t i = 0; i < count; ++i) words[i] = uint64_t(source()) << 32 | source();
        check(&KernelTable::read_sum, shape("count", count), [&](auto kernel, int threads) {
            std::vector<uint64_t> sums(size_t(threads), 0);
            Pool::instance().run([&](const Team& team) { sums[size_t(team.thread)] = kernel(words.data(), size_t(count), team); });
            uint64_t sum = 0;
            for (uint64_t one : sums) sum += one;
            return Results{{"sum", kExact, {double(sum >> 32), double(sum & 0xffffffffu)}}};
        });
    }
}

static void test_byte_products() {
    const Buffer<uint8_t> b(kProductPanels * 16 * kProductWidth);
    const Buffer<int8_t> a(kProductRows * kProductWidth);
    for (int64_t i = 0; i < b.size(); ++i) b[i] = uint8_t(source() & 15);
    for (int64_t i = 0; i < a.size(); ++i) a[i] = int8_t(source() % 255 - 127);
    for (int64_t count : {0, 1, 3}) {
        check(&KernelTable::byte_products, shape("count", count), [&](auto kernel, int) {
            const Team alone{0, 1, nullptr, nullptr, nullptr};
            return Results{{"sum", kExact, {double(kernel(b.data(), a.data(), size_t(count), alone))}}};
        });
    }
}

}  // namespace sambay
