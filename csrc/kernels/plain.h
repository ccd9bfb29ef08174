// Products with plain weights, float32 or bfloat16: of the small matrices that are not quantised, and of plain models.
#pragma once

#include <type_traits>

#include "mixers.h"

namespace sambay {
namespace {

// What is left of rows behind the last whole sixteen elements, filled up with zeros. Room for `kTailRows` of activations.
constexpr int64_t kTailRows = 64;
template <class T>
inline void copy_tail(const T* from, int64_t count, float* to) {
    for (int64_t t = 0; t < 16; ++t) to[t] = t < count ? from_cache(from[t]) : 0;
}

// Of one row of activations, elements and bytes of rows of weights that had better come one by one.
constexpr int64_t kMostAlone = 4096, kLeastBytesAlone = 4096;

// R rows of plain weights with M rows of activations. Every result is one sum in the order of k, whatever R and M are: of
// an instruction set either all tiles have sixteen results, or none has. Weights so many elements `ahead` are fetched.
template <class V, class C, int R, int M>
void plain_tile(const PlainArguments& arg, int64_t r, int64_t row, const float* w_tail, const float* x_tail, int64_t ahead) {
    const int64_t k = arg.k, whole = k / 16 * 16, count = least(R, arg.rows - r);
    const C* w[R];
    for (int64_t i = 0; i < R; ++i) w[i] = static_cast<const C*>(arg.weight) + (r + least(i, count - 1)) * k;
    const float* x = arg.x + row * arg.x_stride;
    typename V::Floats sum[M * R];
    for (int i = 0; i < M * R; ++i) sum[i] = V::floats(0);
    const auto multiply = [&](auto together, int64_t fetched) {
        constexpr int G = decltype(together)::value;
        for (int g = 0; g < R; g += G)
            for (int64_t e = 0; e < whole; e += 16) {
                typename V::Floats weight[G];
                for (int i = 0; i < G; ++i) {
                    if (fetched) V::prefetch(w[g + i] + e + fetched);
                    weight[i] = V::load(w[g + i] + e);
                }
                for (int m = 0; m < M; ++m) {
                    const auto a = V::load(x + m * arg.x_stride + e);
                    for (int i = 0; i < G; ++i) sum[m * R + g + i] = V::fma(weight[i], a, sum[m * R + g + i]);
                }
            }
    };
    // Memory gives one long run faster than four, if the activations stay in the first-level cache for the next row, and if
    // a sum does not wait for itself longer than for the weights. Of more than four it would not know which one comes next.
    constexpr int kFew = R < 4 ? R : 4;
    const bool alone = M == 1 && ahead && k <= kMostAlone && k * int64_t(sizeof(C)) >= kLeastBytesAlone;
    if (alone) multiply(std::integral_constant<int, M == 1 ? 1 : kFew>(), 4096 / int64_t(sizeof(C)));
    else multiply(std::integral_constant<int, kFew>(), ahead);
    if (whole < k)
        for (int m = 0; m < M; ++m) {
            const auto a = V::load(x_tail + m * 16);
            for (int i = 0; i < R; ++i) sum[m * R + i] = V::fma(V::load(w_tail + i * 16), a, sum[m * R + i]);
        }
    float total[M * R];
    if constexpr (M * R == 16) V::store(total, V::sums(sum));
    else for (int i = 0; i < M * R; ++i) total[i] = V::sum(sum[i]);
    for (int m = 0; m < M; ++m) {
        float* out = arg.out + (row + m) * arg.out_stride + r;
        if (count == R && !arg.bias) std::memcpy(out, total + m * R, sizeof(float) * R);
        else for (int64_t i = 0; i < count; ++i) out[i] = arg.bias ? total[m * R + i] + arg.bias[r + i] : total[m * R + i];
    }
}

// The rows of weights `first` to `last`, sixteen of them at a time, with M rows of activations at a time as long as there
// are as many, then with half of M, and so on.
template <class V, class C, int M>
void plain_block(const PlainArguments& arg, int64_t first, int64_t last, int64_t from, int64_t to, const float* w_tail,
                 const float* x_tail) {
    constexpr bool wide = V::kPairTile > 0;  // 32 registers of sixteen lanes: sixteen sums, and what goes into them
    constexpr int R = wide ? 16 / M : 4;
    const int64_t many = from + (to - from) / M * M;
    // Of short rows those 8 KiB or more behind these, of long ones what comes next in them.
    const int64_t bytes = arg.k * int64_t(sizeof(C)), whole = (8192 + R * bytes - 1) / (R * bytes) * R * arg.k;
    const int64_t ahead = bytes < 4096 ? whole : 1024 / int64_t(sizeof(C));
    for (int64_t r = first; r < last; r += R)
        for (int64_t row = from; row < many; row += M)
            plain_tile<V, C, R, M>(arg, r, row, w_tail + (r - first) * 16, x_tail + (row - from) * 16, row == from ? ahead : 0);
    if constexpr (M > 1) {
        if (many < to) plain_block<V, C, M / 2>(arg, first, last, many, to, w_tail, x_tail + (many - from) * 16);
    }
}

// Activations that stay in the second-level cache, then all of the weights, then the next activations.
template <class V, class C>
void plain_rows(const PlainArguments& arg, int64_t first, int64_t last) {
    constexpr int M = V::kPairTile > 0 ? 4 : 2;
    const int64_t whole = arg.k / 16 * 16, tail = arg.k - whole;
    const int64_t fit = most_of(M, (1 << 17) / arg.k / M * M), some = tail ? least(fit, kTailRows) : fit;
    alignas(64) float w_tail[16 * 16], x_tail[kTailRows * 16];
    for (int64_t from = 0; from < arg.m; from += some) {
        const int64_t to = least(arg.m, from + some);
        for (int64_t row = from; tail && row < to; ++row)
            copy_tail(arg.x + row * arg.x_stride + whole, tail, x_tail + (row - from) * 16);
        for (int64_t r = first; r < last; r += 16) {
            const int64_t end = least(r + 16, last);
            for (int64_t i = 0; tail && i < 16; ++i)
                copy_tail(static_cast<const C*>(arg.weight) + least(r + i, end - 1) * arg.k + whole, tail, w_tail + i * 16);
            plain_block<V, C, M>(arg, r, end, from, to, w_tail, x_tail);
        }
    }
}

template <class V>
void plain_kernel(const PlainArguments& arg, const Team& team) {
    // Shares that are as good as equal, each in pieces of some 128 KiB: what one has not come to, another takes.
    const int64_t each = (arg.rows + team.count - 1) / team.count, pieces = most_of(1, each * arg.k / 32768);
    const size_t some = size_t((each + 16 * pieces - 1) / (16 * pieces)) * 16;
    in_turns(team, 0, size_t(arg.rows), some, [&](size_t begin, size_t end) {
        if (arg.half) plain_rows<V, uint16_t>(arg, int64_t(begin), int64_t(end));
        else plain_rows<V, float>(arg, int64_t(begin), int64_t(end));
    });
}

template <class V>
void lookup_kernel(const LookupArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.count), 1);
    for (size_t i = mine.begin; i < mine.end; ++i) {
        float* out = arg.out + int64_t(i) * arg.k;
        if (arg.half) {
            const uint16_t* row = static_cast<const uint16_t*>(arg.weight) + arg.rows[i] * arg.k;
            for (int64_t e = 0; e < arg.k; ++e) out[e] = from_cache(row[e]);
        } else {
            std::memcpy(out, static_cast<const float*>(arg.weight) + arg.rows[i] * arg.k, size_t(arg.k) * sizeof(float));
        }
    }
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
