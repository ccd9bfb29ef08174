// From logits to a token: the largest, the sum of all probabilities, truncation, and the place of a draw.
//
// Logits are looked at in blocks of kSampleBlock, whose largest values say which blocks a truncation need not look at.
// A token's mass is e^((x - most) / temperature), with the difference in float32 and the rest in float64. Tokens are
// ordered by that difference, equal ones by their id; nothing is sorted: what is asked of the order is the place where a
// running sum passes a mark, and buckets of the difference's bits find it in time proportional to the tokens.
#pragma once

#include <cmath>
#include <cstring>

#include "arguments.h"

namespace sambay {
namespace {

constexpr float kEndless = __builtin_inff();

struct Item {
    uint32_t key;  // the bits of most - x, which grow with it
    int32_t id;
    double mass;
};
static_assert(sizeof(Item) == kItemBytes);

// What the kernels keep of `vocab` logits in their scratch memory.
struct SampleRoom {
    Item *items, *spare;  // (vocab,)
    double* sums;         // (blocks,)
    int64_t* ranks;       // (blocks,)
    float* tops;          // (blocks,)

    SampleRoom(uint8_t* scratch, int64_t vocab) {
        const int64_t blocks = sample_blocks(vocab);
        items = reinterpret_cast<Item*>(scratch);
        spare = items + vocab;
        sums = reinterpret_cast<double*>(spare + vocab);
        ranks = reinterpret_cast<int64_t*>(sums + blocks);
        tops = reinterpret_cast<float*>(ranks + blocks);
    }
};

inline int64_t block_size(int64_t block, int64_t vocab) { return least(kSampleBlock, vocab - block * kSampleBlock); }

// The largest of some logits; NaN if one of them is NaN or plus infinity.
template <class V>
float top_of(const float* x, int64_t count) {
    float top = -kEndless, bad = 0;
    int64_t i = 0;
    if (count >= 32) {
        auto top0 = V::load(x), top1 = V::load(x + 16), bad0 = V::floats(0), bad1 = V::floats(0);
        // Minus infinity is a fair logit: it is kept out of the product. A NaN comes through as the second operand.
        const auto floor = V::floats(-1), zero = V::floats(0);
        for (; i + 32 <= count; i += 32) {
            const auto a = V::load(x + i), b = V::load(x + i + 16);
            top0 = V::max(top0, a);
            top1 = V::max(top1, b);
            bad0 = V::fma(V::max(floor, a), zero, bad0);
            bad1 = V::fma(V::max(floor, b), zero, bad1);
        }
        top = V::most(V::max(top0, top1));
        bad = V::sum(V::add(bad0, bad1));
    }
    for (; i < count; ++i) {
        top = x[i] > top ? x[i] : top;
        bad += x[i] > -1 || x[i] != x[i] ? x[i] * 0 : 0;
    }
    return top + bad;
}

// e^x for x <= 0 to a unit or two of the last place, down to the smallest numbers. Plain C++ that compilers make
// vectors of.
inline double exponential(double x) {
    constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: what is added to it is an integer in its lowest bits
    const double v = x < -746.0 ? -746.0 : x;
    const double rounded = v * 1.4426950408889634 + kRound, whole = rounded - kRound;
    const double f = (v - whole * 0x1.62e42fefa2p-1) - whole * 0x1.9ef35793c7673p-41;  // log 2 in two parts
    double p = 1.6059043836821613e-10;                                                 // 1 / 13!, and so on
    p = p * f + 2.08767569878681e-09;
    p = p * f + 2.505210838544172e-08;
    p = p * f + 2.755731922398589e-07;
    p = p * f + 2.7557319223985893e-06;
    p = p * f + 2.48015873015873e-05;
    p = p * f + 0.0001984126984126984;
    p = p * f + 0.001388888888888889;
    p = p * f + 0.008333333333333333;
    p = p * f + 0.041666666666666664;
    p = p * f + 0.16666666666666666;
    p = p * f + 0.5;
    p = p * f + 1.0;
    p = p * f + 1.0;
    uint64_t bits, exponent;
    std::memcpy(&bits, &p, 8);
    std::memcpy(&exponent, &rounded, 8);
    bits += (exponent + 64) << 52;
    std::memcpy(&p, &bits, 8);
    return p * 0x1p-64;  // here what has no exponent of its own any more is rounded
}

inline void masses(const float* x, int64_t count, float most, double temperature, double* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = exponential(double(x[i] - most) / temperature);
}

// The sum of the masses of one block, in eight lanes.
inline double block_mass(const float* x, int64_t count, float most, double temperature) {
    double mass[kSampleBlock], lanes[8] = {};
    masses(x, count, most, temperature, mass);
    for (int64_t i = count; i % 8; ++i) mass[i] = 0;
    for (int64_t i = 0; i < count; i += 8)
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += mass[i + lane];
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

inline double sum_of(const double* x, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += x[i];
    return sum;
}
inline double sum_of(const Item* items, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += items[i].mass;
    return sum;
}

// The largest of all logits, from those of the blocks; NaN as there.
inline float largest(const float* tops, int64_t blocks) {
    float most = -kEndless, bad = 0;
    for (int64_t b = 0; b < blocks; ++b) {
        most = tops[b] > most ? tops[b] : most;
        bad += tops[b] != tops[b] ? tops[b] : 0;
    }
    return most + bad;
}

inline Item item(float most, float x, int64_t id) {
    const float distance = most - x;
    Item made{0, int32_t(id), 0};
    std::memcpy(&made.key, &distance, 4);
    return made;
}
inline float distance_of(uint32_t key) {
    float distance;
    std::memcpy(&distance, &key, 4);
    return distance;
}

struct One { double operator()(const Item&) const { return 1; } };
struct Mass { double operator()(const Item& one) const { return one.mass; } };

// A place in the order: the last token that is kept, and the sum of the weights up to it.
struct Place {
    uint32_t key;
    int32_t id;
    double sum;
    bool holds(const Item& one) const { return one.key < key || (one.key == key && one.id <= id); }
};

// The first item, in order, at which the running sum of weights has reached the mark; else the last that weighs
// anything. The items are given by id, and one at least has a weight.
template <class Weight, class Reached>
Place find(const Item* items, int64_t count, Item* spare, Weight weight, Reached reached) {
    double before = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        double sums[256] = {};
        for (int64_t i = 0; i < count; ++i) sums[items[i].key >> shift & 255] += weight(items[i]);
        uint32_t chosen = 256;
        for (uint32_t bucket = 0; bucket < 256; ++bucket) {
            if (sums[bucket] == 0) continue;
            if (chosen < 256) before += sums[chosen];
            chosen = bucket;
            if (reached(before + sums[bucket])) break;
        }
        int64_t left = 0;
        for (int64_t i = 0; i < count; ++i) {
            const Item one = items[i];
            spare[left] = one;
            left += (one.key >> shift & 255) == chosen;
        }
        items = spare;
        count = left;
    }
    int64_t i = 0;
    for (;; ++i) {
        before += weight(items[i]);
        if (i == count - 1 || reached(before)) break;
    }
    return {items[i].key, items[i].id, before};
}

template <class Keep>
int64_t filter(Item* items, int64_t count, Keep keep) {
    int64_t left = 0;
    for (int64_t i = 0; i < count; ++i) {
        const Item one = items[i];
        items[left] = one;
        left += keep(one);
    }
    return left;
}

// Tokens by their distance from the largest logit.
struct Gatherer {
    const float* x;
    int64_t vocab;
    float most;
    SampleRoom room;

    // A distance that so many tokens keep: each of so many blocks has one.
    float reach(int64_t tokens) const {
        const int64_t blocks = sample_blocks(vocab);
        if (tokens > blocks) return kEndless;
        for (int64_t b = 0; b < blocks; ++b) room.items[b] = item(most, room.tops[b], b);
        const double mark = double(tokens);
        return distance_of(find(room.items, blocks, room.spare, One(), [=](double sum) { return sum >= mark; }).key);
    }

    // The items at that distance and nearer, by id, without masses.
    int64_t within(float reach) const {
        int64_t count = 0;
        for (int64_t b = 0; b < sample_blocks(vocab); ++b) {
            if (!(most - room.tops[b] <= reach)) continue;
            const int64_t first = b * kSampleBlock, last = first + block_size(b, vocab);
            for (int64_t i = first; i < last; ++i) {
                room.items[count] = item(most, x[i], i);
                count += most - x[i] <= reach;
            }
        }
        return count;
    }

    // The `tokens` first ones.
    int64_t first(int64_t tokens) const {
        const int64_t count = within(reach(tokens));
        if (count <= tokens) return count;
        const double mark = double(tokens);
        const Place last = find(room.items, count, room.spare, One(), [=](double sum) { return sum >= mark; });
        return filter(room.items, count, [&](const Item& one) { return last.holds(one); });
    }

    void weigh(int64_t count, double temperature) const {
        float below[kSampleBlock];
        double mass[kSampleBlock];
        for (int64_t i = 0; i < count; i += kSampleBlock) {
            const int64_t some = least(kSampleBlock, count - i);
            for (int64_t j = 0; j < some; ++j) below[j] = -distance_of(room.items[i + j].key);
            masses(below, some, 0, temperature, mass);
            for (int64_t j = 0; j < some; ++j) room.items[i + j].mass = mass[j];
        }
    }
};

inline float to_reach(double distance) { return distance < 3e38 ? float(distance) : kEndless; }

// The token where the running sum over all tokens, by id, passes the mark.
inline int64_t draw_of_all(const Gatherer& all, double temperature, double mark) {
    double mass[kSampleBlock], before = 0;
    for (int64_t b = 0; b < sample_blocks(all.vocab); ++b) {
        if (before + all.room.sums[b] <= mark) {
            before += all.room.sums[b];
            continue;
        }
        const int64_t count = block_size(b, all.vocab);
        masses(all.x + b * kSampleBlock, count, all.most, temperature, mass);
        for (int64_t i = 0; i < count; ++i) {
            before += mass[i];
            if (before > mark) return b * kSampleBlock + i;
        }
    }
    // The sum came out smaller, token by token, than block by block: it is the last token that can come.
    for (int64_t i = all.vocab - 1;; --i) {
        masses(all.x + i, 1, all.most, temperature, mass);
        if (mass[0] > 0) return i;
    }
}

constexpr int64_t kFewTokens = 128;  // first guess at a nucleus

// The tokens that truncation leaves, with their masses, in room.items.
inline int64_t truncated(const Gatherer& all, const ChooseArguments& arg, double total) {
    Item* const items = all.room.items;
    double whole = total;
    int64_t count;
    if (arg.top_k > 0) {
        count = all.first(arg.top_k);
        all.weigh(count, arg.temperature);
        whole = sum_of(items, count);
    } else {
        // A little further than the exact bounds: their logarithms are rounded.
        const float least_mass = arg.min_p > 0 ? to_reach(arg.temperature * (1e-12 - std::log(arg.min_p) * (1 + 1e-6))) : kEndless;
        const float guess = arg.top_p < 1 ? all.reach(kFewTokens) : kEndless;
        count = all.within(guess < least_mass ? guess : least_mass);
        all.weigh(count, arg.temperature);
        if (guess < least_mass && sum_of(items, count) < arg.top_p * total) {
            // All tokens beyond this distance together are less than the nucleus may leave out.
            const double left_out = (1 - arg.top_p) * total / double(all.vocab);
            const float sure = to_reach(arg.temperature * (0.01 - std::log(left_out) * (1 + 1e-6)));
            count = all.within(sure < least_mass ? sure : least_mass);
            all.weigh(count, arg.temperature);
        }
    }
    if (arg.min_p > 0) count = filter(items, count, [&](const Item& one) { return one.mass >= arg.min_p; });
    if (arg.top_p < 1) {
        const double mark = arg.top_p * whole;
        const Place last = find(items, count, all.room.spare, Mass(), [=](double sum) { return sum >= mark; });
        count = filter(items, count, [&](const Item& one) { return last.holds(one); });
    }
    return count;
}

template <class V>
void choose_kernel(const ChooseArguments& arg, const Team& team) {
    const SampleRoom room(arg.scratch, arg.vocab);
    const int64_t blocks = sample_blocks(arg.vocab);
    const Share mine = share(team, size_t(blocks), 1);
    const int64_t begin = int64_t(mine.begin), end = int64_t(mine.end);
    for (int64_t b = begin; b < end; ++b) room.tops[b] = top_of<V>(arg.logits + b * kSampleBlock, block_size(b, arg.vocab));
    barrier(team);
    const float most = largest(room.tops, blocks);
    const bool finite = most - most == 0;
    const bool whole = arg.top_k <= 0 && arg.top_p >= 1 && arg.min_p <= 0;
    if (finite && arg.temperature > 0 && (whole || (arg.top_k <= 0 && arg.top_p < 1))) {
        for (int64_t b = begin; b < end; ++b)
            room.sums[b] = block_mass(arg.logits + b * kSampleBlock, block_size(b, arg.vocab), most, arg.temperature);
        barrier(team);
    }
    if (team.thread) return;
    const Gatherer all{arg.logits, arg.vocab, most, room};
    if (!finite) {
        *arg.token = -1;
    } else if (arg.temperature == 0) {
        int64_t at = 0;
        while (room.tops[at / kSampleBlock] != most) at += kSampleBlock;
        while (arg.logits[at] != most) ++at;
        *arg.token = at;
    } else if (whole) {
        *arg.token = draw_of_all(all, arg.temperature, arg.draw * sum_of(room.sums, blocks));
    } else {
        const double total = arg.top_p < 1 && arg.top_k <= 0 ? sum_of(room.sums, blocks) : 0;
        const int64_t count = truncated(all, arg, total);
        const double mark = arg.draw * sum_of(room.items, count);
        *arg.token = find(room.items, count, room.spare, Mass(), [=](double sum) { return sum > mark; }).id;
    }
}

template <class V>
void top_logprobs_kernel(const TopLogprobsArguments& arg, const Team& team) {
    const SampleRoom room(arg.scratch, arg.vocab);
    const int64_t blocks = sample_blocks(arg.vocab);
    const Share mine = share(team, size_t(blocks), 1);
    const int64_t begin = int64_t(mine.begin), end = int64_t(mine.end);
    for (int64_t b = begin; b < end; ++b) room.tops[b] = top_of<V>(arg.logits + b * kSampleBlock, block_size(b, arg.vocab));
    barrier(team);
    const float most = largest(room.tops, blocks);
    if (!(most - most == 0)) {
        if (!team.thread) *arg.rank = 0;
        return;
    }
    const float distance = most - arg.logits[arg.token];
    for (int64_t b = begin; b < end; ++b) {
        const float* x = arg.logits + b * kSampleBlock;
        const int64_t count = block_size(b, arg.vocab);
        room.sums[b] = block_mass(x, count, most, 1);
        int32_t nearer = 0;
        for (int64_t i = 0; i < count; ++i) nearer += most - x[i] < distance;
        room.ranks[b] = nearer;
    }
    barrier(team);
    if (team.thread) return;
    *arg.rank = 1;
    for (int64_t b = 0; b < blocks; ++b) *arg.rank += room.ranks[b];
    const double normaliser = double(most) + std::log(sum_of(room.sums, blocks));
    arg.tokens[0] = arg.token;
    if (arg.count > 0) {
        const Gatherer all{arg.logits, arg.vocab, most, room};
        const int64_t count = all.first(arg.count);
        for (int64_t i = 0; i < count; ++i) {  // in order: those of one key came by id, and stay so
            const Item one = room.items[i];
            int64_t at = i;
            for (; at > 0 && room.items[at - 1].key > one.key; --at) room.items[at] = room.items[at - 1];
            room.items[at] = one;
        }
        for (int64_t i = 0; i < count; ++i) arg.tokens[i + 1] = room.items[i].id;
    }
    for (int64_t i = 0; i <= arg.count; ++i) arg.logprobs[i] = double(arg.logits[arg.tokens[i]]) - normaliser;
}

}  // namespace
}  // namespace sambay
