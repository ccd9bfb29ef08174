// The gradients of the selective scan, for training. Nothing is saved by the forward pass: one state in kEvery tokens
// is computed again, then the states between, and the recurrence runs backwards through them.
#pragma once

#include "mixers.h"

namespace sambay {
namespace {

constexpr int64_t kEvery = 16;  // states that are held at once: 16 KiB of them, and as much of decays

template <class V>
void plain_scan_kernel(const PlainScanArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.d), 16);
    for (int64_t ch = int64_t(mine.begin); ch < int64_t(mine.end); ch += 16) {
        const int64_t count = least(16, int64_t(mine.end) - ch);
        typename V::Floats rate[16], h[16];
        for (int i = 0; i < 16; ++i) rate[i] = some<V>(arg.a + i * arg.d + ch, count);
        for (int64_t s = 0; s < arg.seq.count; ++s) {
            for (int i = 0; i < 16; ++i) h[i] = V::floats(0);
            for (int64_t t = arg.seq.offsets[s]; t < arg.seq.offsets[s + 1]; ++t) {
                const auto dt = some<V>(arg.dt + t * arg.d + ch, count);
                const auto drive = V::mul(dt, some<V>(arg.u + t * arg.d + ch, count));
                auto out = V::floats(0);
                const float *b = arg.b + t * arg.bc_stride, *c = arg.c + t * arg.bc_stride;
                for (int i = 0; i < 16; ++i) {
                    h[i] = V::fma(V::exp(V::mul(dt, rate[i])), h[i], V::mul(drive, V::floats(b[i])));
                    out = V::fma(h[i], V::floats(c[i]), out);
                }
                put<V>(arg.y + t * arg.d + ch, out, count);
            }
        }
    }
}

// Channels `first` to `last`, sixteen at a time; `sums` (N, 2, 16) collects the gradients of b and c of this thread.
template <class V>
void scan_backward(const ScanBackwardArguments& arg, int64_t first, int64_t last, float* sums, float* starts) {
    constexpr int n = 16;
    const int64_t d = arg.d;
    alignas(64) float states[kEvery + 1][n][16], decays[kEvery][n][16];
    for (int64_t ch = first; ch < last; ch += 16) {
        const int64_t count = least(16, last - ch);
        typename V::Floats rate[n], grad_rate[n];
        for (int i = 0; i < n; ++i) {
            rate[i] = some<V>(arg.a + i * d + ch, count);
            grad_rate[i] = V::floats(0);
        }
        for (int64_t s = 0; s < arg.seq.count; ++s) {
            const int64_t begin = arg.seq.offsets[s], end = arg.seq.offsets[s + 1];
            typename V::Floats h[n], carried[n];
            for (int i = 0; i < n; ++i) h[i] = carried[i] = V::floats(0);
            for (int64_t t = begin; t < end; ++t) {
                if ((t - begin) % kEvery == 0)
                    for (int i = 0; i < n; ++i) V::store(starts + ((t - begin) / kEvery * n + i) * 16, h[i]);
                const auto dt = some<V>(arg.dt + t * d + ch, count), drive = V::mul(dt, some<V>(arg.u + t * d + ch, count));
                for (int i = 0; i < n; ++i)
                    h[i] = V::fma(V::exp(V::mul(dt, rate[i])), h[i], V::mul(drive, V::floats(arg.b[t * arg.bc_stride + i])));
            }
            for (int64_t at = begin + (end - begin - 1) / kEvery * kEvery; at >= begin; at -= kEvery) {
                const int64_t steps = least(kEvery, end - at);
                for (int i = 0; i < n; ++i) V::store(states[0][i], V::load(starts + ((at - begin) / kEvery * n + i) * 16));
                for (int64_t k = 0; k < steps; ++k) {
                    const int64_t t = at + k;
                    const auto dt = some<V>(arg.dt + t * d + ch, count), drive = V::mul(dt, some<V>(arg.u + t * d + ch, count));
                    for (int i = 0; i < n; ++i) {
                        const auto decay = V::exp(V::mul(dt, rate[i]));
                        V::store(decays[k][i], decay);
                        V::store(states[k + 1][i], V::fma(decay, V::load(states[k][i]),
                                                          V::mul(drive, V::floats(arg.b[t * arg.bc_stride + i]))));
                    }
                }
                for (int64_t k = steps - 1; k >= 0; --k) {
                    const int64_t t = at + k;
                    const auto dt = some<V>(arg.dt + t * d + ch, count), u = some<V>(arg.u + t * d + ch, count);
                    const auto grad = some<V>(arg.grad_y + t * d + ch, count), drive = V::mul(dt, u);
                    typename V::Floats to_b[n], to_c[n], grad_drive = V::floats(0), grad_dt = V::floats(0);
                    for (int i = 0; i < n; ++i) {
                        to_c[i] = V::mul(V::load(states[k + 1][i]), grad);
                        const auto g = V::fma(V::floats(arg.c[t * arg.bc_stride + i]), grad, carried[i]);  // of the state
                        to_b[i] = V::mul(g, drive);
                        grad_drive = V::fma(g, V::floats(arg.b[t * arg.bc_stride + i]), grad_drive);
                        const auto back = V::mul(g, V::load(decays[k][i]));
                        carried[i] = back;
                        const auto exponent = V::mul(back, V::load(states[k][i]));  // of dt a
                        grad_dt = V::fma(exponent, rate[i], grad_dt);
                        grad_rate[i] = V::fma(exponent, dt, grad_rate[i]);
                    }
                    put<V>(arg.grad_u + t * d + ch, V::mul(grad_drive, dt), count);
                    put<V>(arg.grad_dt + t * d + ch, V::fma(grad_drive, u, grad_dt), count);
                    float* row = sums + t * 2 * n;
                    V::store(row, V::add(V::load(row), V::sums(to_b)));
                    V::store(row + n, V::add(V::load(row + n), V::sums(to_c)));
                }
            }
        }
        for (int i = 0; i < n; ++i) put<V>(arg.grad_a + i * d + ch, grad_rate[i], count);
    }
}

template <class V>
void scan_backward_kernel(const ScanBackwardArguments& arg, const Team& team) {
    const Share mine = share(team, size_t(arg.d), 16);
    const int64_t rows = arg.seq.offsets[arg.seq.count], size = rows * 32;
    float* sums = arg.scratch + team.thread * (size + (arg.longest / kEvery + 1) * 256);
    std::memset(sums, 0, sizeof(float) * size);
    scan_backward<V>(arg, int64_t(mine.begin), int64_t(mine.end), sums, sums + size);
    barrier(team);
    // The threads' sums in their order, so that the result depends on their number only.
    const Share part = share(team, size_t(rows), 1);
    for (int64_t t = int64_t(part.begin); t < int64_t(part.end); ++t) {
        auto b = V::floats(0), c = V::floats(0);
        for (int i = 0; i < team.count; ++i) {
            const float* row = arg.scratch + i * (size + (arg.longest / kEvery + 1) * 256) + t * 32;
            b = V::add(b, V::load(row));
            c = V::add(c, V::load(row + 16));
        }
        V::store(arg.grad_b + t * 16, b);
        V::store(arg.grad_c + t * 16, c);
    }
}

}  // namespace
}  // namespace sambay
