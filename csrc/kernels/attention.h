// The two uses of the one-pass attention: over a ring of the last tokens, and over the pages of the shared cache.
#pragma once

#include "mixers.h"

namespace sambay {
namespace {


template <class V, class C>
class GroupQueries {
  public:
    explicit GroupQueries(const Heads& h) : h_(h) {
        core_.width = h.width;
        core_.maps = h.maps;
        core_.members = h.members();
        core_.stride = h.token();
        for (int64_t q = 0; q < h.members() * h.maps; ++q) {
            core_.queries[q] = scaled_ + q * h.width;
            core_.sums[q] = sums_ + q * h.width * h.maps;
        }
    }

    Attention<V, C>& begin(const float* row, int64_t group) {
        const int64_t count = h_.members() * h_.maps * h_.width;
        const float* q = row + group * count;
        for (int64_t e = 0; e < count; e += 16) V::store(scaled_ + e, V::mul(V::load(q + e), V::floats(h_.scale)));
        core_.begin();
        return core_;
    }

    void finish(int64_t group, float* row) {
        const int64_t wide = h_.maps * h_.width;
        for (int64_t m = 0; m < h_.members(); ++m) {
            float* out = row + (group * h_.members() + m) * wide;
            core_.finish(m, h_.lambda, out);
            if (h_.norm) head_norm<V>(out, h_.norm, wide, h_.norm_eps, h_.norm_scale);
        }
    }

  private:
    const Heads& h_;
    alignas(64) float scaled_[kMostQueries * kMostWidth];
    alignas(64) float sums_[kMostQueries * 2 * kMostWidth];
    Attention<V, C> core_;
};


// Items `first` to `last` of seq.count * groups: attend to the ring and the chunk, then write the ring.
// keys, values: (slots, window, kv_heads, width). `k`, `v`: the chunk, (rows, kv_heads, width) in the cache's type.
template <class V, class C>
void window_attention(const Sequences& seq, const Heads& h, const float* q, int64_t q_stride, const C* k, const C* v, C* keys,
                      C* values, int64_t window, float* out, int64_t first, int64_t last) {
    GroupQueries<V, C> queries(h);
    const int64_t token = h.token(), wide = h.maps * h.width, out_stride = h.heads * h.width;
    for (int64_t item = first; item < last; ++item) {
        const int64_t s = item / h.groups(), group = item % h.groups(), at = group * wide;
        const int64_t begin = seq.offsets[s], length = seq.offsets[s + 1] - begin, start = seq.starts[s];
        const int64_t base = keys ? seq.slots[s] * window * token + at : 0;
        for (int64_t j = 0; j < length; ++j) {
            auto& core = queries.begin(q + (begin + j) * q_stride, group);
            const int64_t low = most_of(0, start + j - window + 1);
            for (int64_t p = low; p < start;) {  // at most two stretches: the ring up to its end, and from its beginning
                const int64_t place = p % window, count = least(start - p, window - place);
                core.attend({keys + base + place * token, values + base + place * token, count});
                p += count;
            }
            const int64_t from = most_of(0, low - start);
            core.attend({k + (begin + from) * token + at, v + (begin + from) * token + at, j + 1 - from});
            queries.finish(group, out + (begin + j) * out_stride);
        }
        if (!keys) continue;
        for (int64_t j = most_of(0, length - window); j < length; ++j) {
            const int64_t place = base + (start + j) % window * token, row = (begin + j) * token + at;
            std::memcpy(keys + place, k + row, sizeof(C) * wide);
            std::memcpy(values + place, v + row, sizeof(C) * wide);
        }
    }
}

template <class V, class C>
void window_typed(const WindowArguments& arg, const Team& team) {
    const Heads& h = arg.heads;
    const int64_t token = h.token(), rows = arg.seq.offsets[arg.seq.count], wide = h.maps * h.width;
    C *k = reinterpret_cast<C*>(arg.scratch), *v = k + rows * token;
    const Share mine = share(team, size_t(arg.seq.count * h.groups()), 1);
    // The chunk is rounded to the cache's type first, so that it makes no difference where a chunk ends.
    for (size_t item = mine.begin; item < mine.end; ++item) {
        const int64_t s = int64_t(item) / h.groups(), at = int64_t(item) % h.groups() * wide;
        for (int64_t r = arg.seq.offsets[s]; r < arg.seq.offsets[s + 1]; ++r)
            for (int64_t e = at; e < at + wide; ++e) {
                to_cache(k[r * token + e], arg.k[r * arg.kv_stride + e]);
                to_cache(v[r * token + e], arg.v[r * arg.kv_stride + e]);
            }
    }
    window_attention<V, C>(arg.seq, h, arg.q, arg.q_stride, k, v, static_cast<C*>(arg.keys), static_cast<C*>(arg.values), arg.window,
                           arg.out, int64_t(mine.begin), int64_t(mine.end));
}

template <class V>
void window_kernel(const WindowArguments& arg, const Team& team) {
    if (arg.half) window_typed<V, uint16_t>(arg, team);
    else window_typed<V, float>(arg, team);
}

template <class V, class C>
void shared_typed(const SharedArguments& arg, const Team& team) {
    const Heads& h = arg.heads;
    const C *keys = static_cast<const C*>(arg.keys), *values = static_cast<const C*>(arg.values);
    GroupQueries<V, C> queries(h);
    const int64_t token = h.token(), wide = h.maps * h.width, out_stride = h.heads * h.width;
    const Share mine = share(team, size_t(arg.rows * h.groups()), 1);
    for (size_t item = mine.begin; item < mine.end; ++item) {
        const int64_t row = int64_t(item) / h.groups(), group = int64_t(item) % h.groups(), at = group * wide, seen = arg.seen[row];
        auto& core = queries.begin(arg.q + row * arg.q_stride, group);
        const int64_t* table = arg.pages + arg.table_start[row];
        for (int64_t p = 0, i = 0; p < seen; p += arg.page_size, ++i) {
            if (p + arg.page_size < seen) {  // the rows of a page lie far apart: the hardware does not see them coming
                const int64_t next = table[i + 1] * arg.page_size * token + at;
                for (int64_t t = 0; t < arg.page_size; ++t)
                    for (int64_t e = 0; e < wide; e += 64 / int64_t(sizeof(C))) {
                        V::prefetch(keys + next + t * token + e);
                        V::prefetch(values + next + t * token + e);
                    }
            }
            const int64_t page = table[i] * arg.page_size * token + at;
            core.attend({keys + page, values + page, least(arg.page_size, seen - p)});
        }
        queries.finish(group, arg.out + row * out_stride);
    }
}

template <class V>
void shared_kernel(const SharedArguments& arg, const Team& team) {
    if (arg.half) shared_typed<V, uint16_t>(arg, team);
    else shared_typed<V, float>(arg, team);
}

}  // namespace
}  // namespace sambay
