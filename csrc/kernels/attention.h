// Attention in one pass over tiles of keys and values: over a ring of the last tokens, and over the pages of the shared
// cache.
//
// All query heads that share the key-value heads of a group are computed together, for a few rows of queries at once, so
// that each key and value is read once for all of them. A row meets the tiles of its sequence in the order of their
// tokens, and a tile begins at a position that 64 divides wherever a chunk began: what a row gets does not depend, to
// the bit, on how the prompt was cut or on what stands beside it.
#pragma once

#include "cache.h"

namespace sambay {
namespace {

// Tokens [begin, end) of a tile, by lane.
struct Seen {
    int64_t begin, end;
    bool empty() const { return begin >= end; }
};

// The softmax of up to kMostQueries queries at once. Query (row, member, map) attends to key head `map` of the group;
// the values are the group's heads side by side.
template <class V, class C>
class GroupAttention {
  public:
    explicit GroupAttention(const Heads& h)
        : h_(h), per_row_(h.members() * h.maps), wide_(h.maps * h.width), most_rows_(kMostQueries / per_row_) {}

    int64_t most_rows() const { return most_rows_; }

    // Rows of queries of a group, from row `first` on.
    void begin(const float* q, int64_t stride, int64_t rows, int64_t group) {
        rows_ = rows;
        const int64_t each = per_row_ * h_.width;
        for (int64_t r = 0; r < rows; ++r) {
            const float* source = q + r * stride + group * each;
            for (int64_t e = 0; e < each; e += 16)
                V::store(queries_ + r * each + e, V::mul(V::load(source + e), V::floats(h_.scale)));
        }
        for (int64_t i = 0; i < rows * per_row_; ++i) {
            most_[i] = -INFINITY;
            total_[i] = 0;
            if constexpr (kBytes) split_query(i);
        }
        std::memset(sums_, 0, sizeof(float) * size_t(rows * per_row_ * wide_));
    }

    // Take in a tile, of which row r sees seen[r]; the first `ahead` tokens of `next` will be seen after it.
    void attend(const Tile<C>& tile, const Tile<C>& next, int64_t ahead, const Seen* seen) {
        Seen all = seen[0];
        for (int64_t r = 1; r < rows_; ++r) all = {least(all.begin, seen[r].begin), most_of(all.end, seen[r].end)};
        for (int64_t map = 0; map < h_.maps; ++map) {
            const C* keys = tile.keys + map * tile.key_step;
            const char* soon = reinterpret_cast<const char*>(next.keys + map * next.key_step);
            const int64_t count = rows_ * h_.members();
            for (int64_t i = 0; i < count; i += kTogether)
                score_some<kTogether>(least(kTogether, count - i), keys, tile, map, i, soon, i ? 0 : ahead, all);
        }
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t i = r * per_row_; i < (r + 1) * per_row_; ++i) weigh(i, tile, seen[r]);
        const char* soon = reinterpret_cast<const char*>(next.values);
        const int64_t count = rows_ * per_row_;
        for (int64_t i = 0; i < count; i += kTogether)
            mix_some<kTogether>(least(kTogether, count - i), tile, i, soon, i ? 0 : ahead, all);
    }

    // The first map's mean minus lambda times the second's, normalised, of every row: out (rows, heads * width).
    void finish(float* out, int64_t stride, int64_t group) {
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t m = 0; m < h_.members(); ++m) {
                const int64_t i = r * per_row_ + m * h_.maps;
                float* to = out + r * stride + (group * h_.members() + m) * wide_;
                const auto first = V::floats(1 / total_[i]), second = V::floats(h_.maps == 2 ? -h_.lambda / total_[i + 1] : 0);
                for (int64_t e = 0; e < wide_; e += 16) {
                    auto mixed = V::mul(V::load(sums_ + i * wide_ + e), first);
                    if (h_.maps == 2) mixed = V::fma(V::load(sums_ + (i + 1) * wide_ + e), second, mixed);
                    V::store(to + e, mixed);
                }
                if (h_.norm) head_norm<V>(to, h_.norm, wide_, h_.norm_eps, h_.norm_scale);
            }
    }

  private:
    static constexpr bool kBytes = sizeof(C) == 1;
    // With 32 wide registers 16 sums are held at once, else 4.
    static constexpr bool kWide = V::kTile >= 8;
    static constexpr int kTogether = kWide ? 4 : 2, kBlocks = kWide ? 4 : 2;
    static constexpr float kSteps = 32512;  // 127 * 256: a number in two signed bytes, the high one at most 127

    // A query in two bytes for each element: hi * 256 + lo steps.
    void split_query(int64_t i) {
        const float* q = queries_ + i * h_.width;
        float most = 0;
        for (int64_t e = 0; e < h_.width; ++e) most = std::fabs(q[e]) > most ? std::fabs(q[e]) : most;
        const float inverse = most > 0 ? kSteps / most : 0.0f;
        query_step_[i] = most / kSteps;
        for (int64_t e = 0; e < h_.width; ++e) query_step_[i] += 0 * q[e];  // not a number stays so
        query_sum_[2 * i] = query_sum_[2 * i + 1] = 0;
        for (int64_t e = 0; e < h_.width; ++e) {
            const float steps = q[e] * inverse;
            const int32_t whole = steps == steps ? int32_t(std::nearbyint(steps)) : 0, high = (whole + 128) >> 8;
            query_bytes_[(2 * i) * h_.width + e] = int8_t(high);
            query_bytes_[(2 * i + 1) * h_.width + e] = int8_t(whole - high * 256);
            query_sum_[2 * i] += high;
            query_sum_[2 * i + 1] += whole - high * 256;
        }
    }

    template <int N>
    void score_some(int64_t count, const C* keys, const Tile<C>& tile, int64_t map, int64_t i, const char* soon, int64_t ahead,
                    Seen all) {
        if constexpr (N > 0) {
            if (count == N) score<N>(keys, tile, map, i, soon, ahead, all);
            else score_some<N - 1>(count, keys, tile, map, i, soon, ahead, all);
        }
    }

    // Scores of N queries i, i + 1, ... of a map with the tokens of a tile; what nobody sees is not read.
    template <int N>
    void score(const C* keys, const Tile<C>& tile, int64_t map, int64_t i, const char* soon, int64_t ahead, Seen all) {
        int64_t at[N];
        for (int n = 0; n < N; ++n) at[n] = (i + n) * h_.maps + map;
        if constexpr (!kBytes) {
            for (int64_t b = all.begin / 16 * 16; b < all.end; b += 16 * kBlocks, ahead = 0)
                score_lanes<N, kBlocks>(least(kBlocks, (all.end - b + 15) / 16), at, keys, b, soon, ahead);
        } else {
            constexpr int64_t kLanes = 16 * kBlocks;
            for (int64_t b = all.begin / kLanes * kLanes; b < all.end; b += kLanes)
                for (int n = 0; n < N; ++n) score_bytes(keys, tile, map, at[n], b, n || b >= ahead ? nullptr : soon);
        }
    }

    template <int N, int B>
    void score_lanes(int64_t blocks, const int64_t* at, const C* keys, int64_t b, const char* soon, int64_t ahead) {
        if constexpr (B > 0) {
            if (blocks < B) return score_lanes<N, B - 1>(blocks, at, keys, b, soon, ahead);
            typename V::Floats sum[N][B];
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < B; ++j) sum[n][j] = V::floats(0);
            for (int64_t e = 0; e < h_.width; ++e) {
                const C* row = keys + e * kTileTokens + b;
                fetch(soon + e * kTileTokens * int64_t(sizeof(C)), ahead * int64_t(sizeof(C)));
                typename V::Floats key[B];
                for (int j = 0; j < B; ++j) key[j] = V::load(row + 16 * j);
                for (int n = 0; n < N; ++n) {
                    const auto q = V::floats(queries_[at[n] * h_.width + e]);
                    for (int j = 0; j < B; ++j) sum[n][j] = V::fma(q, key[j], sum[n][j]);
                }
            }
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < B; ++j) V::store(weights_[at[n]] + b + 16 * j, sum[n][j]);
        }
    }

    void score_bytes(const C* keys, const Tile<C>& tile, int64_t map, int64_t i, int64_t b, const char* soon) {
        typename V::Ints high[kBlocks], low[kBlocks];
        for (int j = 0; j < kBlocks; ++j) {
            high[j] = V::ints(-V::kZero8 * query_sum_[2 * i]);
            low[j] = V::ints(-V::kZero8 * query_sum_[2 * i + 1]);
        }
        const int8_t *q = query_bytes_ + 2 * i * h_.width, *q_low = q + h_.width;
        for (int64_t e = 0; e < h_.width; e += 16)
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
                const int64_t at = ((e / 4 + f) * kTileTokens + b) * 4;
                const uint8_t* row = reinterpret_cast<const uint8_t*>(keys) + at;
                if (soon) fetch(soon + at, 64 * kBlocks);
                const auto a = V::four(q + e, f), c = V::four(q_low + e, f);
                for (int j = 0; j < kBlocks; ++j) {
                    const auto key = V::whole(V::bytes(row + 64 * j));
                    high[j] = V::template dot<8>(high[j], key, a);
                    low[j] = V::template dot<8>(low[j], key, c);
                }
            }
        const uint16_t* scales = tile.key_scales + map * tile.scale_step + b;
        for (int j = 0; j < kBlocks; ++j) {
            const auto both = V::fma(V::to_floats(high[j]), V::floats(256), V::to_floats(low[j]));
            const auto scale = V::mul(V::halves(reinterpret_cast<const uint8_t*>(scales + 16 * j)), V::floats(query_step_[i]));
            V::store(weights_[i] + b + 16 * j, V::mul(both, scale));
        }
    }

    // Scores become weights relative to the largest score so far.
    void weigh(int64_t i, const Tile<C>& tile, Seen seen) {
        float* w = weights_[i];
        if (seen.empty()) {
            std::memset(w, 0, sizeof weights_[i]);
            if constexpr (kBytes) no_weights(i);
            return;
        }
        for (int64_t t = 0; t < seen.begin; ++t) w[t] = -INFINITY;
        for (int64_t t = seen.end; t < kTileTokens; ++t) w[t] = -INFINITY;
        auto top = V::load(w);
        for (int64_t t = 16; t < kTileTokens; t += 16) top = V::max(top, V::load(w + t));
        const float here = V::most(top), now = here > most_[i] ? here : most_[i];
        if (now > most_[i]) {
            const float shrink = std::exp(most_[i] - now);
            total_[i] *= shrink;
            for (int64_t e = 0; e < wide_; e += 16)
                V::store(sums_ + i * wide_ + e, V::mul(V::load(sums_ + i * wide_ + e), V::floats(shrink)));
            most_[i] = now;
        }
        auto sum = V::floats(0);
        for (int64_t t = 0; t < kTileTokens; t += 16) {
            const auto p = V::exp(V::sub(V::load(w + t), V::floats(now)));
            V::store(w + t, p);
            sum = V::add(sum, p);
        }
        total_[i] += V::sum(sum);
        if constexpr (kBytes) split_weights(i, tile, seen);
    }

    // A weight times the scale of its value, in two bytes as a query is.
    void split_weights(int64_t i, const Tile<C>& tile, Seen seen) {
        float* w = weights_[i];
        for (int64_t t = 0; t < kTileTokens; t += 16)
            V::store(w + t, V::mul(V::load(w + t), V::halves(reinterpret_cast<const uint8_t*>(tile.value_scales + t))));
        for (int64_t t = 0; t < seen.begin; ++t) w[t] = 0;  // there a scale may be anything
        for (int64_t t = seen.end; t < kTileTokens; ++t) w[t] = 0;
        auto top = V::load(w);
        for (int64_t t = 16; t < kTileTokens; t += 16) top = V::max(top, V::load(w + t));
        const float most = V::most(top), inverse = most > 0 ? kSteps / most : 0.0f;
        weight_step_[i] = most / kSteps;
        int32_t sum_high = 0, sum_low = 0;
        int8_t *high = weight_bytes_[2 * i], *low = weight_bytes_[2 * i + 1];
        for (int64_t t = 0; t < kTileTokens; ++t) {
            const float steps = w[t] * inverse;
            const int32_t whole = int32_t(steps < kSteps ? steps + 0.5f : kSteps), up = (whole + 128) >> 8;
            high[t] = int8_t(up);
            low[t] = int8_t(whole - up * 256);
            sum_high += up;
            sum_low += whole - up * 256;
        }
        weight_sum_[2 * i] = sum_high;
        weight_sum_[2 * i + 1] = sum_low;
    }

    void no_weights(int64_t i) {
        weight_step_[i] = 0;
        weight_sum_[2 * i] = weight_sum_[2 * i + 1] = 0;
        std::memset(weight_bytes_[2 * i], 0, 2 * kTileTokens);
    }

    template <int N>
    void mix_some(int64_t count, const Tile<C>& tile, int64_t i, const char* soon, int64_t ahead, Seen all) {
        if constexpr (N > 0) {
            if (count == N) mix<N>(tile, i, soon, ahead, all);
            else mix_some<N - 1>(count, tile, i, soon, ahead, all);
        }
    }

    // Add the values of a tile, weighted, to the sums of N queries.
    template <int N>
    void mix(const Tile<C>& tile, int64_t i, const char* soon, int64_t ahead, Seen all) {
        if constexpr (!kBytes) {
            int64_t e = 0;
            for (; e + 16 * kBlocks <= wide_; e += 16 * kBlocks) mix_floats<N, kBlocks>(tile.values, i, e, soon, ahead, all);
            for (; e < wide_; e += 16) mix_floats<N, 1>(tile.values, i, e, soon, ahead, all);
        } else {
            for (int64_t e = 0; e < wide_; e += 16) mix_bytes<N>(tile.values, i, e, ahead ? soon : nullptr);
        }
    }

    template <int N, int E>
    void mix_floats(const C* values, int64_t i, int64_t e, const char* soon, int64_t ahead, Seen all) {
        typename V::Floats sum[N][E];
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < E; ++j) sum[n][j] = V::load(sums_ + (i + n) * wide_ + e + 16 * j);
        for (int64_t t = all.begin; t < all.end; ++t) {
            const C* row = values + t * wide_ + e;
            const int64_t later = t - all.begin;
            if (later < ahead) fetch(soon + (later * wide_ + e) * int64_t(sizeof(C)), 16 * E * int64_t(sizeof(C)));
            typename V::Floats value[E];
            for (int j = 0; j < E; ++j) value[j] = V::load(row + 16 * j);
            for (int n = 0; n < N; ++n) {
                const auto w = V::floats(weights_[i + n][t]);
                for (int j = 0; j < E; ++j) sum[n][j] = V::fma(w, value[j], sum[n][j]);
            }
        }
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < E; ++j) V::store(sums_ + (i + n) * wide_ + e + 16 * j, sum[n][j]);
    }

    template <int N>
    void mix_bytes(const C* values, int64_t i, int64_t e, const char* soon) {
        typename V::Ints high[N], low[N];
        for (int n = 0; n < N; ++n) {
            high[n] = V::ints(-V::kZero8 * weight_sum_[2 * (i + n)]);
            low[n] = V::ints(-V::kZero8 * weight_sum_[2 * (i + n) + 1]);
        }
        for (int64_t t = 0; t < kTileTokens; t += 16)  // all of them: with a weight of 0 it does not matter what is there
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
                const int64_t at = ((t / 4 + f) * wide_ + e) * 4;
                if (soon) fetch(soon + at, 64);
                const auto value = V::whole(V::bytes(reinterpret_cast<const uint8_t*>(values) + at));
                for (int n = 0; n < N; ++n) {
                    high[n] = V::template dot<8>(high[n], value, V::four(weight_bytes_[2 * (i + n)] + t, f));
                    low[n] = V::template dot<8>(low[n], value, V::four(weight_bytes_[2 * (i + n) + 1] + t, f));
                }
            }
        for (int n = 0; n < N; ++n) {
            const auto both = V::fma(V::to_floats(high[n]), V::floats(256), V::to_floats(low[n]));
            float* sum = sums_ + (i + n) * wide_ + e;
            V::store(sum, V::fma(both, V::floats(weight_step_[i + n]), V::load(sum)));
        }
    }

    // A tile ahead, into the second-level cache: the first level has no room for two tiles.
    static void fetch(const char* p, int64_t bytes) {
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at, 0, 2);
    }

    const Heads& h_;
    const int64_t per_row_, wide_, most_rows_;
    int64_t rows_ = 0;
    float most_[kMostQueries], total_[kMostQueries];
    alignas(64) float queries_[kMostQueries * kMostWidth];
    alignas(64) float sums_[kMostQueries * 2 * kMostWidth];
    alignas(64) float weights_[kMostQueries][kTileTokens];
    // Of bytes: high and low ones, and their sums.
    float query_step_[kBytes ? kMostQueries : 1], weight_step_[kBytes ? kMostQueries : 1];
    int32_t query_sum_[kBytes ? 2 * kMostQueries : 1], weight_sum_[kBytes ? 2 * kMostQueries : 1];
    alignas(64) int8_t query_bytes_[kBytes ? 2 * kMostQueries * kMostWidth : 1];
    alignas(64) int8_t weight_bytes_[kBytes ? 2 * kMostQueries : 1][kTileTokens];
};

// The chunk of one sequence for one group of heads: its new tokens in tiles that begin at positions that 64 divides, the
// first filled up with what the ring has of it.
template <class C>
class Chunk {
  public:
    Chunk(const WindowArguments& arg, int64_t s, int64_t group, uint8_t* scratch)
        : arg_(arg), h_(arg.heads), begin_(arg.seq.offsets[s]), length_(arg.seq.offsets[s + 1] - begin_),
          start_(arg.seq.starts[s]), page_(arg.cache.keys ? arg.seq.slots[s] : 0), group_(group) {
        const int64_t tiles = length_ / kTileTokens + 2, tokens = tiles * kTileTokens, wide = h_.maps * h_.width;
        own_ = Cache{scratch, scratch + tokens * wide * int64_t(sizeof(C)), nullptr, nullptr, tiles, arg.cache.kept};
        if (arg.cache.kept == Kept::bytes) {
            own_.key_scales = reinterpret_cast<uint16_t*>(scratch + 2 * tokens * wide * int64_t(sizeof(C)));
            own_.value_scales = own_.key_scales + tokens * h_.maps;
        }
        alone_ = h_;
        alone_.kv_heads = h_.maps;  // the scratch holds a single group
    }

    int64_t begin() const { return begin_; }
    int64_t length() const { return length_; }
    int64_t start() const { return start_; }

    // One token of a ring needs no tiles of its own: it takes the place of one that it does not see.
    bool single() const { return length_ == 1 && arg_.cache.keys; }

    void keep_single() const { put(ring(start_ / kTileTokens), 0); }

    void pack() const {
        if (arg_.cache.keys && start_ % kTileTokens) copy_tile(ring(start_ / kTileTokens), own(0), h_);
        for (int64_t j = 0; j < length_; ++j) put(tile(start_ / kTileTokens + (start_ % kTileTokens + j) / kTileTokens), j);
    }

    // The tile that begins at position 64 * t.
    Tile<C> tile(int64_t t) const {
        const int64_t first = start_ / kTileTokens;
        return single() || t < first ? ring(t) : own(t - first);
    }

    // Whole tiles are copied to the ring; of the last one only what is new, since older tokens stand behind it.
    void write_ring() const {
        if (!arg_.cache.keys) return;
        const int64_t end = start_ + length_, last = end / kTileTokens, keep = last - arg_.cache.tiles;
        for (int64_t t = most_of(start_ / kTileTokens, keep); t < last; ++t) copy_tile(tile(t), ring(t), h_);
        for (int64_t p = most_of(start_, last * kTileTokens); p < end; ++p) put(ring(last), p - start_);
    }

  private:
    Tile<C> ring(int64_t t) const { return tile_of<C>(arg_.cache, h_, page_, group_, t % arg_.cache.tiles); }
    Tile<C> own(int64_t t) const { return tile_of<C>(own_, alone_, 0, 0, t); }
    void put(const Tile<C>& to, int64_t j) const {
        const int64_t at = (begin_ + j) * arg_.kv_stride + group_ * h_.maps * h_.width;
        keep(to, h_, (start_ + j) % kTileTokens, arg_.k + at, arg_.v + at);
    }

    const WindowArguments& arg_;
    const Heads& h_;
    const int64_t begin_, length_, start_, page_, group_;
    Cache own_;
    Heads alone_;
};

template <class V, class C>
void window_typed(const WindowArguments& arg, const Team& team) {
    const Heads& h = arg.heads;
    GroupAttention<V, C> core(h);
    one_by_one(team, arg.seq.count * h.groups(), [&](int64_t item) {
        const int64_t s = item / h.groups(), group = item % h.groups();
        const Chunk<C> chunk(arg, s, group, arg.scratch + team.thread * arg.scratch_step);
        if (chunk.single()) chunk.keep_single();
        else chunk.pack();
        for (int64_t j = 0; j < chunk.length(); j += core.most_rows()) {
            const int64_t rows = least(core.most_rows(), chunk.length() - j), position = chunk.start() + j;
            core.begin(arg.q + (chunk.begin() + j) * arg.q_stride, arg.q_stride, rows, group);
            const int64_t first = most_of(0, position - arg.window + 1) / kTileTokens, last = (position + rows - 1) / kTileTokens;
            for (int64_t t = first; t <= last; ++t) {
                Seen seen[kMostQueries];
                for (int64_t r = 0; r < rows; ++r)
                    seen[r] = {most_of(0, position + r - arg.window + 1 - t * kTileTokens),
                               least(kTileTokens, position + r + 1 - t * kTileTokens)};
                const bool more = chunk.single() && t < last;  // else they are in the cache already
                const int64_t ahead = more ? least(kTileTokens, position + 1 - (t + 1) * kTileTokens) : 0;
                core.attend(chunk.tile(t), chunk.tile(more ? t + 1 : t), ahead, seen);
            }
            core.finish(arg.out + (chunk.begin() + j) * h.heads * h.width, h.heads * h.width, group);
        }
        if (!chunk.single() && arg.seq.writes(s)) chunk.write_ring();
    });
}

template <class V>
void window_kernel(const WindowArguments& arg, const Team& team) {
    if (arg.cache.kept == Kept::float32) window_typed<V, float>(arg, team);
    else if (arg.cache.kept == Kept::bfloat16) window_typed<V, uint16_t>(arg, team);
    else window_typed<V, Code>(arg, team);
}

template <class V, class C>
void shared_typed(const SharedArguments& arg, const Team& team) {
    const Heads& h = arg.heads;
    GroupAttention<V, C> core(h);
    const int64_t together = core.most_rows(), blocks = (arg.rows + together - 1) / together;
    one_by_one(team, blocks * h.groups(), [&](int64_t item) {
        const int64_t group = item % h.groups(), end = least(arg.rows, (item / h.groups() + 1) * together);
        for (int64_t row = item / h.groups() * together; row < end;) {
            int64_t rows = 1;  // those of one sequence
            while (row + rows < end && arg.table_start[row + rows] == arg.table_start[row]) ++rows;
            const int64_t* table = arg.pages + arg.table_start[row];
            core.begin(arg.q + row * arg.q_stride, arg.q_stride, rows, group);
            int64_t most = 0;
            for (int64_t r = 0; r < rows; ++r) most = most_of(most, arg.seen[row + r]);
            const int64_t tiles = (most + kTileTokens - 1) / kTileTokens;
            Tile<C> tile = tile_of<C>(arg.cache, h, table[0], group, 0);
            for (int64_t t = 0; t < tiles; ++t) {
                Seen seen[kMostQueries];
                for (int64_t r = 0; r < rows; ++r) seen[r] = {0, least(kTileTokens, arg.seen[row + r] - t * kTileTokens)};
                const bool more = t + 1 < tiles;
                const Tile<C> next = more ? tile_of<C>(arg.cache, h, table[t + 1], group, 0) : tile;
                core.attend(tile, next, more ? least(kTileTokens, most - (t + 1) * kTileTokens) : 0, seen);
                tile = next;
            }
            core.finish(arg.out + row * h.heads * h.width, h.heads * h.width, group);
            row += rows;
        }
    });
}

template <class V>
void shared_kernel(const SharedArguments& arg, const Team& team) {
    if (arg.cache.kept == Kept::float32) shared_typed<V, float>(arg, team);
    else if (arg.cache.kept == Kept::bfloat16) shared_typed<V, uint16_t>(arg, team);
    else shared_typed<V, Code>(arg, team);
}

}  // namespace
}  // namespace sambay
