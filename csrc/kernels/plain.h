// Products with plain weights, float32 or bfloat16: of the small matrices that are not quantised, and of small models.
#pragma once

#include "mixers.h"

namespace sambay {
namespace {

// Four rows of plain weights with M rows of activations. Every result is one sum in the order of k, whatever M is.
template <class V, class C, int M>
void plain_tile(const PlainArguments& arg, int64_t r, int64_t row) {
    const int64_t k = arg.k, whole = k / 16 * 16, count = least(4, arg.rows - r);
    const C* w[4];
    for (int64_t i = 0; i < 4; ++i) w[i] = static_cast<const C*>(arg.weight) + (r + least(i, count - 1)) * k;
    const float* x = arg.x + row * arg.x_stride;
    typename V::Floats sum[4][M];
    for (int i = 0; i < 4; ++i)
        for (int m = 0; m < M; ++m) sum[i][m] = V::floats(0);
    for (int64_t e = 0; e < whole; e += 16) {
        typename V::Floats weight[4];
        for (int i = 0; i < 4; ++i) {
            if (M == 1) V::prefetch(w[i] + e + 1024 / sizeof(C));
            weight[i] = V::load(w[i] + e);
        }
        for (int m = 0; m < M; ++m) {
            const auto a = V::load(x + m * arg.x_stride + e);
            for (int i = 0; i < 4; ++i) sum[i][m] = V::fma(weight[i], a, sum[i][m]);
        }
    }
    for (int m = 0; m < M; ++m)
        for (int64_t i = 0; i < count; ++i) {
            float total = V::sum(sum[i][m]);
            for (int64_t t = whole; t < k; ++t) total += from_cache(w[i][t]) * x[m * arg.x_stride + t];
            arg.out[(row + m) * arg.out_stride + r + i] = arg.bias ? total + arg.bias[r + i] : total;
        }
}

// Activations that stay in the second-level cache, then all of the weights, then the next activations.
template <class V, class C>
void plain_rows(const PlainArguments& arg, int64_t first, int64_t last) {
    constexpr int M = V::kPairTile > 0 ? 4 : 2;
    const int64_t some = most_of(M, (1 << 17) / arg.k / M * M);
    for (int64_t from = 0; from < arg.m; from += some) {
        const int64_t to = least(arg.m, from + some);
        for (int64_t r = first; r < last; r += 4) {
            int64_t row = from;
            for (; row + M <= to; row += M) plain_tile<V, C, M>(arg, r, row);
            for (; row < to; ++row) plain_tile<V, C, 1>(arg, r, row);
        }
    }
}

template <class V>
void plain_kernel(const PlainArguments& arg, const Team& team) {
    const size_t some = size_t(most_of(1, 16384 / arg.k)) * 4;
    in_turns(team, 0, size_t(arg.rows), some, [&](size_t begin, size_t end) {
        if (arg.half) plain_rows<V, uint16_t>(arg, int64_t(begin), int64_t(end));
        else plain_rows<V, float>(arg, int64_t(begin), int64_t(end));
    });
}

template <class V>
void lookup_kernel(const LookupArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.count), 1);
    for (size_t i = mine.begin; i < mine.end; ++i)
        std::memcpy(arg.out + int64_t(i) * arg.k, arg.weight + arg.rows[i] * arg.k, size_t(arg.k) * sizeof(float));
}

template <class V>
void scale_kernel(const ScaleArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.count), 16);
    for (int64_t e = int64_t(mine.begin); e < int64_t(mine.end); e += 16) {
        const int64_t count = least(16, arg.count - e);
        put<V>(arg.out + e, V::mul(V::floats(arg.factor), some<V>(arg.x + e, count)), count);
    }
}

}  // namespace
}  // namespace sambay
