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

// The softmax of up to kMostQueries queries of a group at once, of some groups in turns. Query (row, member, map) attends
// to key head `map` of its group; the values are the group's heads side by side.
template <class V, class C>
class GroupAttention {
  public:
    explicit GroupAttention(const Heads& h)
        : h_(h), per_row_(h.members() * h.maps), wide_(h.maps * h.width), most_rows_(kMostQueries / per_row_) {}

    int64_t most_rows() const { return most_rows_; }  // at once
    int64_t most_groups(int64_t rows) const { return kHeld / (rows * per_row_); }

    // Rows of queries, of so many groups from `group` on.
    void begin(const float* q, int64_t stride, int64_t rows, int64_t group, int64_t groups) {
        rows_ = rows;
        groups_ = groups;
        const int64_t each = per_row_ * h_.width;
        for (int64_t g = 0; g < groups; ++g)
            for (int64_t r = 0; r < rows; ++r) {
                const float* source = q + r * stride + (group + g) * each;
                float* to = queries_ + (g * rows + r) * each;
                for (int64_t e = 0; e < each; e += 16) V::store(to + e, V::mul(V::load(source + e), V::floats(h_.scale)));
            }
        for (int64_t i = 0; i < groups * rows * per_row_; ++i) {
            most_[i] = -INFINITY;
            total_[i] = 0;
            if constexpr (kBytes) split_query(i);
        }
        std::memset(sums_, 0, sizeof(float) * size_t(groups * rows * per_row_ * wide_));
    }

    // Take in a tile of one of the groups, of which row r sees seen[r]. Where a line of it is read, the same one of `next` is
    // fetched, into the second-level cache, since the first has no room for two tiles.
    void attend(int64_t group, const Tile<C>& tile, const Tile<C>& next, const Seen* seen) {
        base_ = group * rows_ * per_row_;
        Seen all = seen[0];
        for (int64_t r = 1; r < rows_; ++r) all = {least(all.begin, seen[r].begin), most_of(all.end, seen[r].end)};
        const int64_t members = rows_ * h_.members(), queries = rows_ * per_row_;
        for (int64_t map = 0; map < h_.maps; ++map)
            for (int64_t i = 0; i < members; i += kScored)
                score_some<kScored>(least(kScored, members - i), tile, i ? tile : next, map, i, all);
        for (int64_t i = 0; i < queries; ++i) weigh(i, tile, seen[i / per_row_]);
        for (int64_t i = 0; i < queries; i += kTogether)
            mix_some<kTogether>(least(kTogether, queries - i), tile, i ? tile : next, i, all);
    }

    // The first map's mean minus lambda times the second's, normalised, of every row: out (rows, heads * width).
    void finish(float* out, int64_t stride, int64_t group) {
        for (int64_t i = 0; i < groups_ * rows_ * per_row_; i += h_.maps) {
            const int64_t member = i / h_.maps % h_.members(), r = i / per_row_ % rows_, g = group + i / per_row_ / rows_;
            float* to = out + r * stride + (g * h_.members() + member) * wide_;
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
    static constexpr int64_t kHeld = 64;  // queries, of all groups
    // With 32 wide registers 16 sums are held at once, else 4; those of bytes are two each.
    static constexpr bool kWide = V::kTile >= 8;
    static constexpr int kTogether = kWide ? 4 : 2, kBlocks = kWide ? 4 : 2;
    static constexpr int kScored = !kBytes ? kTogether : kWide ? 2 : 1, kAcross = !kBytes ? kBlocks : kWide ? 2 : 1;
    static constexpr int kTileVectors = int(kTileTokens / 16);
    // A number in two signed bytes of at most 127: high * kLow + low steps.
    static constexpr float kHigh = 127, kLow = 254, kSteps = kHigh * kLow;

    // The bytes of floats whose largest magnitude is `most`, and the sums of them; 16 divides `count`.
    static void split(const float* x, int64_t count, float most, int8_t* high, int8_t* low, int32_t* sums) {
        alignas(64) float whole[32], rest[32];
        int8_t codes[2][32];
        const auto inverse = V::floats(most > 0 ? kHigh / most : 0.0f), shift = V::floats(12582912);  // to the nearest: 1.5 * 2^23
        sums[0] = sums[1] = 0;
        for (int64_t e = 0; e < count; e += 32) {
            const int here = int(least(32, count - e));
            for (int j = 0; j < 32; j += 16) {
                const auto product = j < here ? V::mul(V::load(x + e + j), inverse) : V::floats(0);
                const auto steps = V::max(product, V::floats(-kHigh));  // not a number becomes one: the step is none
                const auto nearest = V::sub(V::add(steps, shift), shift);
                V::store(whole + j, nearest);
                V::store(rest + j, V::sub(steps, nearest));
            }
            sums[0] += V::codes32(whole, 1, codes[0]);
            sums[1] += V::codes32(rest, kLow, codes[1]);
            for (int j = 0; j < here; j += 16) {
                std::memcpy(high + e + j, codes[0] + j, 16);
                std::memcpy(low + e + j, codes[1] + j, 16);
            }
        }
    }

    void split_query(int64_t i) {
        const float* q = queries_ + i * h_.width;
        float most = 0;
        for (int64_t e = 0; e < h_.width; ++e) most = std::fabs(q[e]) > most ? std::fabs(q[e]) : most;
        query_step_[i] = most / kSteps;
        for (int64_t e = 0; e < h_.width; ++e) query_step_[i] += 0 * q[e];  // not a number stays so
        int8_t* bytes = query_bytes_ + 2 * i * h_.width;
        split(q, h_.width, most, bytes, bytes + h_.width, query_sum_ + 2 * i);
    }

    template <int N>
    void score_some(int64_t count, const Tile<C>& tile, const Tile<C>& next, int64_t map, int64_t i, Seen all) {
        if constexpr (N > 0) {
            if (count == N) score<N>(tile, next, map, i, all);
            else score_some<N - 1>(count, tile, next, map, i, all);
        }
    }

    // Scores of N queries i, i + 1, ... of a map with the tokens of a tile; what nobody sees is not read.
    template <int N>
    void score(const Tile<C>& tile, const Tile<C>& next, int64_t map, int64_t i, Seen all) {
        const C* keys = tile.keys + map * tile.key_step;
        const char* soon = reinterpret_cast<const char*>(next.keys + map * next.key_step);
        int64_t at[N];
        for (int n = 0; n < N; ++n) at[n] = (i + n) * h_.maps + map;
        if constexpr (!kBytes) {
            for (int64_t b = all.begin / 16 * 16; b < all.end; b += 16 * kBlocks)
                score_lanes<N, kBlocks>(least(kBlocks, (all.end - b + 15) / 16), at, keys, b, soon);
        } else {
            constexpr int64_t kLanes = 16 * kBlocks;
            for (int64_t b = all.begin / kLanes * kLanes; b < all.end; b += kLanes)
                score_bytes<N>(tile, map, at, keys, b, soon);
        }
    }

    template <int N, int B>
    void score_lanes(int64_t blocks, const int64_t* at, const C* keys, int64_t b, const char* soon) {
        if constexpr (B > 0) {
            if (blocks < B) return score_lanes<N, B - 1>(blocks, at, keys, b, soon);
            typename V::Floats sum[N][B];
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < B; ++j) sum[n][j] = V::floats(0);
            for (int64_t e = 0; e < h_.width; ++e) {
                const C* row = keys + e * kTileTokens + b;
                fetch<16 * B * sizeof(C)>(soon + (e * kTileTokens + b) * int64_t(sizeof(C)));
                typename V::Floats key[B];
                for (int j = 0; j < B; ++j) key[j] = V::load(row + 16 * j);
                for (int n = 0; n < N; ++n) {
                    const auto q = V::floats(queries_[(base_ + at[n]) * h_.width + e]);
                    for (int j = 0; j < B; ++j) sum[n][j] = V::fma(q, key[j], sum[n][j]);
                }
            }
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < B; ++j) V::store(weights_[at[n]] + b + 16 * j, sum[n][j]);
        }
    }

    template <int N>
    void score_bytes(const Tile<C>& tile, int64_t map, const int64_t* at, const C* keys, int64_t b, const char* soon) {
        typename V::Ints high[N][kBlocks], low[N][kBlocks];
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < kBlocks; ++j) {
                high[n][j] = V::ints(-V::kZero8 * query_sum_[2 * (base_ + at[n])]);
                low[n][j] = V::ints(-V::kZero8 * query_sum_[2 * (base_ + at[n]) + 1]);
            }
        for (int64_t e = 0; e < h_.width; e += 16)
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
                const int64_t place = ((e / 4 + f) * kTileTokens + b) * 4;
                const uint8_t* row = reinterpret_cast<const uint8_t*>(keys) + place;
                fetch<64 * kBlocks>(soon + place);
                typename V::Bytes key[kBlocks];
                for (int j = 0; j < kBlocks; ++j) key[j] = V::whole(V::bytes(row + 64 * j));
                for (int n = 0; n < N; ++n) {
                    const int8_t* q = query_bytes_ + 2 * (base_ + at[n]) * h_.width + e;
                    const auto a = V::four(q, f), c = V::four(q + h_.width, f);
                    for (int j = 0; j < kBlocks; ++j) {
                        high[n][j] = V::template dot<8>(high[n][j], key[j], a);
                        low[n][j] = V::template dot<8>(low[n][j], key[j], c);
                    }
                }
            }
        const uint16_t* scales = tile.key_scales + map * tile.scale_step + b;
        for (int j = 0; j < kBlocks; ++j) {
            const auto scale = V::halves(reinterpret_cast<const uint8_t*>(scales + 16 * j));
            for (int n = 0; n < N; ++n) {
                const auto both = V::fma(V::to_floats(high[n][j]), V::floats(kLow), V::to_floats(low[n][j]));
                V::store(weights_[at[n]] + b + 16 * j, V::mul(both, V::mul(scale, V::floats(query_step_[base_ + at[n]]))));
            }
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
        typename V::Floats p[kTileVectors];
        for (int j = 0; j < kTileVectors; ++j) p[j] = V::load(w + 16 * j);
        float &most = most_[base_ + i], &total = total_[base_ + i], *sums = sums_ + (base_ + i) * wide_;
        const float here = most_of_all(p), now = here > most ? here : most;
        if (now > most) {
            const float shrink = std::exp(most - now);
            total *= shrink;
            for (int64_t e = 0; e < wide_; e += 16) V::store(sums + e, V::mul(V::load(sums + e), V::floats(shrink)));
            most = now;
        }
        auto sum = V::floats(0);
        for (int j = 0; j < kTileVectors; ++j) {
            p[j] = V::exp(V::sub(p[j], V::floats(now)));
            sum = V::add(sum, p[j]);
        }
        total += V::sum(sum);
        if constexpr (kBytes) split_weights(i, p, tile, seen);
        else for (int j = 0; j < kTileVectors; ++j) V::store(w + 16 * j, p[j]);
    }

    static float most_of_all(const typename V::Floats* p) {
        auto top = p[0];
        for (int j = 1; j < kTileVectors; ++j) top = V::max(top, p[j]);
        return V::most(top);
    }

    // A weight times the scale of its value, in two bytes as a query is.
    void split_weights(int64_t i, typename V::Floats* p, const Tile<C>& tile, Seen seen) {
        float* w = weights_[i];
        for (int j = 0; j < kTileVectors; ++j) {
            p[j] = V::mul(p[j], V::halves(reinterpret_cast<const uint8_t*>(tile.value_scales + 16 * j)));
            V::store(w + 16 * j, p[j]);
        }
        if (seen.begin > 0 || seen.end < kTileTokens) {  // there a scale may be anything
            for (int64_t t = 0; t < seen.begin; ++t) w[t] = 0;
            for (int64_t t = seen.end; t < kTileTokens; ++t) w[t] = 0;
            for (int j = 0; j < kTileVectors; ++j) p[j] = V::load(w + 16 * j);
        }
        const float most = most_of_all(p);
        weight_step_[i] = most / kSteps;
        split(w, kTileTokens, most, weight_bytes_[2 * i], weight_bytes_[2 * i + 1], weight_sum_ + 2 * i);
    }

    void no_weights(int64_t i) {
        weight_step_[i] = 0;
        weight_sum_[2 * i] = weight_sum_[2 * i + 1] = 0;
        std::memset(weight_bytes_[2 * i], 0, 2 * kTileTokens);
    }

    template <int N>
    void mix_some(int64_t count, const Tile<C>& tile, const Tile<C>& next, int64_t i, Seen all) {
        if constexpr (N > 0) {
            if (count == N) mix<N>(tile, next, i, all);
            else mix_some<N - 1>(count, tile, next, i, all);
        }
    }

    // Add the values of a tile, weighted, to the sums of N queries.
    template <int N>
    void mix(const Tile<C>& tile, const Tile<C>& next, int64_t i, Seen all) {
        const char* soon = reinterpret_cast<const char*>(next.values);
        int64_t e = 0;
        for (; e + 16 * kAcross <= wide_; e += 16 * kAcross) mix_lanes<N, kAcross>(tile.values, i, e, all, soon);
        for (; e < wide_; e += 16) mix_lanes<N, 1>(tile.values, i, e, all, soon);
    }

    template <int N, int E>
    void mix_lanes(const C* values, int64_t i, int64_t e, Seen all, const char* soon) {
        if constexpr (kBytes) mix_bytes<N, E>(values, i, e, soon);
        else mix_floats<N, E>(values, i, e, all, soon);
    }

    template <int N, int E>
    void mix_floats(const C* values, int64_t i, int64_t e, Seen all, const char* soon) {
        typename V::Floats sum[N][E];
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < E; ++j) sum[n][j] = V::load(sums_ + (base_ + i + n) * wide_ + e + 16 * j);
        for (int64_t t = all.begin; t < all.end; ++t) {
            const C* row = values + t * wide_ + e;
            fetch<16 * E * sizeof(C)>(soon + (t * wide_ + e) * int64_t(sizeof(C)));
            typename V::Floats value[E];
            for (int j = 0; j < E; ++j) value[j] = V::load(row + 16 * j);
            for (int n = 0; n < N; ++n) {
                const auto w = V::floats(weights_[i + n][t]);
                for (int j = 0; j < E; ++j) sum[n][j] = V::fma(w, value[j], sum[n][j]);
            }
        }
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < E; ++j) V::store(sums_ + (base_ + i + n) * wide_ + e + 16 * j, sum[n][j]);
    }

    template <int N, int E>
    void mix_bytes(const C* values, int64_t i, int64_t e, const char* soon) {
        typename V::Ints high[N][E], low[N][E];
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < E; ++j) {
                high[n][j] = V::ints(-V::kZero8 * weight_sum_[2 * (i + n)]);
                low[n][j] = V::ints(-V::kZero8 * weight_sum_[2 * (i + n) + 1]);
            }
        for (int64_t t = 0; t < kTileTokens; t += 16)  // all of them: with a weight of 0 it does not matter what is there
#pragma GCC unroll 4
            for (int f = 0; f < 4; ++f) {
                const int64_t place = ((t / 4 + f) * wide_ + e) * 4;
                const uint8_t* row = reinterpret_cast<const uint8_t*>(values) + place;
                fetch<64 * E>(soon + place);
                typename V::Bytes value[E];
                for (int j = 0; j < E; ++j) value[j] = V::whole(V::bytes(row + 64 * j));
                for (int n = 0; n < N; ++n) {
                    const auto a = V::four(weight_bytes_[2 * (i + n)] + t, f), c = V::four(weight_bytes_[2 * (i + n) + 1] + t, f);
                    for (int j = 0; j < E; ++j) {
                        high[n][j] = V::template dot<8>(high[n][j], value[j], a);
                        low[n][j] = V::template dot<8>(low[n][j], value[j], c);
                    }
                }
            }
        for (int n = 0; n < N; ++n)
            for (int j = 0; j < E; ++j) {
                const auto both = V::fma(V::to_floats(high[n][j]), V::floats(kLow), V::to_floats(low[n][j]));
                float* sum = sums_ + (base_ + i + n) * wide_ + e + 16 * j;
                V::store(sum, V::fma(both, V::floats(weight_step_[i + n]), V::load(sum)));
            }
    }

    template <int Bytes>
    static void fetch(const char* p) {
        for (int at = 0; at < Bytes; at += 64) __builtin_prefetch(p + at, 0, 2);
    }

    const Heads& h_;
    const int64_t per_row_, wide_, most_rows_;
    int64_t rows_ = 0, groups_ = 0, base_ = 0;  // the first query of the group that takes in a tile
    float most_[kHeld], total_[kHeld];
    alignas(64) float queries_[kHeld * kMostWidth];
    alignas(64) float sums_[kHeld * 2 * kMostWidth];
    alignas(64) float weights_[kMostQueries][kTileTokens];
    // Of bytes: high and low ones, and their sums.
    float query_step_[kBytes ? kHeld : 1], weight_step_[kBytes ? kMostQueries : 1];
    int32_t query_sum_[kBytes ? 2 * kHeld : 1], weight_sum_[kBytes ? 2 * kMostQueries : 1];
    alignas(64) int8_t query_bytes_[kBytes ? 2 * kHeld * kMostWidth : 1];
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
            core.begin(arg.q + (chunk.begin() + j) * arg.q_stride, arg.q_stride, rows, group, 1);
            const int64_t first = most_of(0, position - arg.window + 1) / kTileTokens, last = (position + rows - 1) / kTileTokens;
            for (int64_t t = first; t <= last; ++t) {
                Seen seen[kMostQueries];
                for (int64_t r = 0; r < rows; ++r)
                    seen[r] = {most_of(0, position + r - arg.window + 1 - t * kTileTokens),
                               least(kTileTokens, position + r + 1 - t * kTileTokens)};
                const bool more = chunk.single() && t < last;  // else they are in the cache already
                const Tile<C> tile = chunk.tile(t);
                core.attend(0, tile, more ? chunk.tile(t + 1) : tile, seen);
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

// Rows of one sequence and some groups, over all of its tokens.
template <class V, class C>
void attend_pages(GroupAttention<V, C>& core, const SharedArguments& arg, int64_t row, int64_t rows, int64_t group, int64_t count) {
    const Heads& h = arg.heads;
    const int64_t* table = arg.pages + arg.table_start[row];
    int64_t most = 0;
    for (int64_t r = 0; r < rows; ++r) most = most_of(most, arg.seen[row + r]);
    const int64_t tiles = (most + kTileTokens - 1) / kTileTokens;
    core.begin(arg.q + row * arg.q_stride, arg.q_stride, rows, group, count);
    Tile<C> tile = tile_of<C>(arg.cache, h, table[0], group, 0);
    for (int64_t t = 0; t < tiles; ++t) {
        Seen seen[kMostQueries];
        for (int64_t r = 0; r < rows; ++r) seen[r] = {0, least(kTileTokens, arg.seen[row + r] - t * kTileTokens)};
        for (int64_t g = 0; g < count; ++g) {
            const bool wraps = g + 1 == count, over = wraps && t + 1 == tiles;
            const Tile<C> next = over ? tile : tile_of<C>(arg.cache, h, table[t + wraps], group + (wraps ? 0 : g + 1), 0);
            core.attend(g, tile, next, seen);
            tile = next;
        }
    }
    core.finish(arg.out + row * h.heads * h.width, h.heads * h.width, group);
}

// Rows of queries that are computed one after the other, and the groups of heads of an item of work: those of a page lie
// side by side, and who reads some of them tile by tile walks through memory in long runs. There are as few parts of the
// groups as leave nobody waiting for the longest rows.
struct SharedWork {
    int64_t together, blocks, parts;

    SharedWork(const SharedArguments& arg, int64_t together, int64_t threads)
        : together(together), blocks((arg.rows + together - 1) / together) {
        int64_t total = 0, most = 0;
        for (int64_t block = 0; block < blocks; ++block) {
            int64_t tokens = 0;
            for (int64_t row = block * together; row < end(arg, block); ++row) tokens += arg.seen[row];
            total += tokens;
            most = most_of(most, tokens);
        }
        const int64_t items = threads > 1 ? 2 * threads : 1;
        parts = most_of(1, least(arg.heads.groups(), total ? (items * most + total - 1) / total : 1));
    }

    int64_t end(const SharedArguments& arg, int64_t block) const { return least(arg.rows, (block + 1) * together); }
};

template <class V, class C>
void shared_typed(const SharedArguments& arg, const Team& team) {
    const Heads& h = arg.heads;
    GroupAttention<V, C> core(h);
    const SharedWork work(arg, core.most_rows(), team.count);
    one_by_one(team, work.blocks * work.parts, [&](int64_t item) {
        const int64_t block = item / work.parts, part = item % work.parts, end = work.end(arg, block);
        const int64_t first = part * h.groups() / work.parts, last = (part + 1) * h.groups() / work.parts;
        for (int64_t row = block * work.together; row < end;) {
            int64_t rows = 1;  // those of one sequence
            while (row + rows < end && arg.table_start[row + rows] == arg.table_start[row]) ++rows;
            const int64_t most_groups = core.most_groups(rows);
            for (int64_t group = first; group < last; group += most_groups)
                attend_pages(core, arg, row, rows, group, least(last - group, most_groups));
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
