// The two uses of the one-pass attention: over a ring of the last tokens, and over the pages of the shared cache.
#pragma once

#include <vector>

#include "mixers.h"

namespace sambay {

// What both uses share. Queries (rows, heads, width) float32; out (rows, heads / maps, maps * width) float32.
struct Heads {
    int64_t heads, kv_heads, width;
    int64_t maps;        // 2: differential
    float scale;         // of the scores
    float lambda;        // weight of the second map
    const float* norm;   // (maps * width,) weight of the norm over each pair, or null
    float norm_eps, norm_scale;

    int64_t groups() const { return kv_heads / maps; }
    int64_t members() const { return heads / kv_heads; }
    int64_t token() const { return kv_heads * width; }  // elements of a token in a cache
    bool fits() const { return width % 16 == 0 && members() * maps <= 16; }
};

namespace detail {

template <class V, class C>
class GroupQueries {
  public:
    explicit GroupQueries(const Heads& h) : h_(h), scaled_(size(h)), sums_(size(h) * h.maps) {
        core_.width = h.width;
        core_.maps = h.maps;
        core_.members = h.members();
        core_.stride = h.token();
        for (int64_t q = 0; q < h.members() * h.maps; ++q) {
            core_.queries[q] = scaled_.data() + q * h.width;
            core_.sums[q] = sums_.data() + q * h.width * h.maps;
        }
    }

    Attention<V, C>& begin(const float* row, int64_t group) {
        const int64_t count = h_.members() * h_.maps * h_.width;
        const float* q = row + group * count;
        for (int64_t e = 0; e < count; e += 16) V::store(scaled_.data() + e, V::mul(V::load(q + e), V::floats(h_.scale)));
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
    static size_t size(const Heads& h) { return size_t(h.members() * h.maps * h.width); }
    const Heads& h_;
    std::vector<float> scaled_, sums_;
    Attention<V, C> core_;
};

}  // namespace detail

// Items `first` to `last` of seq.count * groups: attend to the ring and the chunk, then write the ring.
// keys, values: (slots, window, kv_heads, width). `k`, `v`: the chunk, (rows, kv_heads, width) in the cache's type.
template <class V, class C>
void window_attention(const Sequences& seq, const Heads& h, const float* q, int64_t q_stride, const C* k, const C* v, C* keys,
                      C* values, int64_t window, float* out, int64_t first, int64_t last) {
    detail::GroupQueries<V, C> queries(h);
    const int64_t token = h.token(), wide = h.maps * h.width, out_stride = h.heads * h.width;
    for (int64_t item = first; item < last; ++item) {
        const int64_t s = item / h.groups(), group = item % h.groups(), at = group * wide;
        const int64_t begin = seq.offsets[s], length = seq.offsets[s + 1] - begin, start = seq.starts[s];
        const int64_t base = keys ? seq.slots[s] * window * token + at : 0;
        for (int64_t j = 0; j < length; ++j) {
            auto& core = queries.begin(q + (begin + j) * q_stride, group);
            const int64_t low = std::max<int64_t>(0, start + j - window + 1);
            for (int64_t p = low; p < start;) {  // at most two stretches: the ring up to its end, and from its beginning
                const int64_t place = p % window, count = std::min(start - p, window - place);
                core.attend({keys + base + place * token, values + base + place * token, count});
                p += count;
            }
            const int64_t from = std::max<int64_t>(0, low - start);
            core.attend({k + (begin + from) * token + at, v + (begin + from) * token + at, j + 1 - from});
            queries.finish(group, out + (begin + j) * out_stride);
        }
        if (!keys) continue;
        for (int64_t j = std::max<int64_t>(0, length - window); j < length; ++j) {
            const int64_t place = base + (start + j) % window * token, row = (begin + j) * token + at;
            std::memcpy(keys + place, k + row, sizeof(C) * wide);
            std::memcpy(values + place, v + row, sizeof(C) * wide);
        }
    }
}

// Rows that ask for logits, each with the pages of its sequence and the number of tokens it sees.
struct Asking {
    int64_t rows;
    const int64_t* seen;         // (rows,)
    const int64_t* table_start;  // (rows,) into `pages`
    const int32_t* pages;
    int64_t page_size;
};

// Items `first` to `last` of rows * groups. keys, values: (pages, page_size, kv_heads, width).
template <class V, class C>
void shared_attention(const Asking& rows, const Heads& h, const float* q, int64_t q_stride, const C* keys, const C* values,
                      float* out, int64_t first, int64_t last) {
    detail::GroupQueries<V, C> queries(h);
    const int64_t token = h.token(), wide = h.maps * h.width, out_stride = h.heads * h.width;
    for (int64_t item = first; item < last; ++item) {
        const int64_t row = item / h.groups(), group = item % h.groups(), at = group * wide;
        auto& core = queries.begin(q + row * q_stride, group);
        const int32_t* table = rows.pages + rows.table_start[row];
        for (int64_t p = 0; p < rows.seen[row]; p += rows.page_size) {
            const int64_t page = table[p / rows.page_size] * rows.page_size * token + at;
            const int64_t count = std::min(rows.page_size, rows.seen[row] - p);
            if (p + rows.page_size < rows.seen[row]) {
                const int64_t next = table[p / rows.page_size + 1] * rows.page_size * token + at;
                for (int64_t t = 0; t < rows.page_size; ++t)
                    for (int64_t e = 0; e < wide; e += 64 / int64_t(sizeof(C))) {
                        V::prefetch(keys + next + t * token + e);
                        V::prefetch(values + next + t * token + e);
                    }
            }
            core.attend({keys + page, values + page, count});
        }
        queries.finish(group, out + row * out_stride);
    }
}

}  // namespace sambay
