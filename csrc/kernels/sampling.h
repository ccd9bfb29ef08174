// From logits to a token: the largest, the sum of all probabilities, truncation, and the place of a draw.
//
// Logits are looked at in blocks of kSampleBlock, whose largest values say which blocks a truncation need not look at.
// A token's mass is e^((x - most) / temperature), with the difference in float32 and the rest in float64. Tokens are
// ordered by that difference, equal ones by their id; nothing is sorted: what is asked of the order is the place where a
// running sum passes a mark, and buckets of the difference's bits find it in time proportional to the tokens.
// The calling thread works alone: to wake another costs more than the tenths of a millisecond that it would save.
#pragma once

#include <cmath>
#include <cstring>

#include "arguments.h"

namespace sambay {
namespace {

constexpr float kEndless = __builtin_inff();
constexpr int64_t kFewTokens = 128;  // first guess at a nucleus

struct Item {
    uint32_t key;  // the bits of most - x, which grow with it
    int32_t id;
    double mass;
};
static_assert(sizeof(Item) == kItemBytes);

// What the kernels keep of `vocab` logits in their scratch memory.
struct SampleRoom {
    Item *items, *spare;  // (vocab,)
    double* sums;         // (blocks,) masses
    float* tops;          // (blocks,) largest logits

    SampleRoom(uint8_t* scratch, int64_t vocab) {
        const int64_t blocks = sample_blocks(vocab);
        items = reinterpret_cast<Item*>(scratch);
        spare = items + vocab;
        sums = reinterpret_cast<double*>(spare + vocab);
        tops = reinterpret_cast<float*>(sums + blocks);
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

// `slope`: 1 / temperature.
inline void masses(const float* x, int64_t count, float most, double slope, double* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = exponential(double(x[i] - most) * slope);
}

// The sum of the masses of one block, in eight lanes.
inline double block_mass(const float* x, int64_t count, float most, double slope) {
    double mass[kSampleBlock], lanes[8] = {};
    masses(x, count, most, slope, mass);
    for (int64_t i = count; i % 8; ++i) mass[i] = 0;
    for (int64_t i = 0; i < count; i += 8)
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += mass[i + lane];
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

// The same in float32, at a fourth of the time.
template <class V>
double rough_block_mass(const float* x, int64_t count, float most, float slope) {
    const auto top = V::floats(most), scale = V::floats(slope);
    auto sum0 = V::floats(0), sum1 = sum0;
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        sum0 = V::add(sum0, V::exp(V::mul(V::sub(V::load(x + i), top), scale)));
        sum1 = V::add(sum1, V::exp(V::mul(V::sub(V::load(x + i + 16), top), scale)));
    }
    return V::sum(V::add(sum0, sum1)) + (i < count ? block_mass(x + i, count - i, most, slope) : 0);
}

inline double sum_of(const Item* items, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += items[i].mass;
    return sum;
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

// A row of logits, and what is known of it.
struct Row {
    const float* x;
    int64_t vocab;
    SampleRoom room;
    float most = -kEndless;  // the largest; NaN if one of them is NaN or plus infinity
    double slope = 1;        // 1 / temperature

    template <class V>
    void find_most() {
        float bad = 0;
        for (int64_t b = 0; b < sample_blocks(vocab); ++b) {
            const float top = room.tops[b] = top_of<V>(x + b * kSampleBlock, block_size(b, vocab));
            most = top > most ? top : most;
            bad += top != top ? top : 0;
        }
        most += bad;  // and a minus zero becomes zero: no distance from it is a minus zero
    }
    bool finite() const { return most - most == 0; }

    // The sum of all masses, with those of the blocks.
    double total() const {
        double sum = 0;
        for (int64_t b = 0; b < sample_blocks(vocab); ++b)
            sum += room.sums[b] = block_mass(x + b * kSampleBlock, block_size(b, vocab), most, slope);
        return sum;
    }

    template <class V>
    double rough_total() const {
        double sum = 0;
        for (int64_t b = 0; b < sample_blocks(vocab); ++b)
            sum += rough_block_mass<V>(x + b * kSampleBlock, block_size(b, vocab), most, float(slope));
        return sum;
    }

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

    void weigh(int64_t count) const {
        float below[kSampleBlock];
        double mass[kSampleBlock];
        for (int64_t i = 0; i < count; i += kSampleBlock) {
            const int64_t some = least(kSampleBlock, count - i);
            for (int64_t j = 0; j < some; ++j) below[j] = -distance_of(room.items[i + j].key);
            masses(below, some, 0, slope, mass);
            for (int64_t j = 0; j < some; ++j) room.items[i + j].mass = mass[j];
        }
    }
};

// The token where the running sum over all tokens, by id, passes the mark; the blocks have their sums.
inline int64_t draw_of_all(const Row& row, double mark) {
    double mass[kSampleBlock], before = 0;
    for (int64_t b = 0; b < sample_blocks(row.vocab); ++b) {
        if (before + row.room.sums[b] <= mark) {
            before += row.room.sums[b];
            continue;
        }
        const int64_t count = block_size(b, row.vocab);
        masses(row.x + b * kSampleBlock, count, row.most, row.slope, mass);
        for (int64_t i = 0; i < count; ++i) {
            before += mass[i];
            if (before > mark) return b * kSampleBlock + i;
        }
    }
    // The sum came out smaller, token by token, than block by block: it is the last token that can come.
    for (int64_t i = row.vocab - 1;; --i) {
        masses(row.x + i, 1, row.most, row.slope, mass);
        if (mass[0] > 0) return i;
    }
}

inline int64_t at_least(const Row& row, int64_t count, double mass) {
    return filter(row.room.items, count, [=](const Item& one) { return one.mass >= mass; });
}

// The most probable of the items up to a mark, which lies between `low` and `high`; `exact` says where, if it matters.
template <class Exact>
int64_t nucleus(const Row& row, int64_t count, double low, double high, Exact exact) {
    const auto up_to = [&](double mark) {
        return find(row.room.items, count, row.room.spare, Mass(), [=](double sum) { return sum >= mark; });
    };
    Place last = up_to(low);
    if (low <= last.sum && last.sum < high) last = up_to(exact());
    return filter(row.room.items, count, [&](const Item& one) { return last.holds(one); });
}

inline float to_reach(double distance) { return distance < 3e38 ? float(distance) : kEndless; }

// The tokens that truncation leaves, with their masses, in room.items.
template <class V>
int64_t truncated(const Row& row, const ChooseArguments& arg) {
    if (arg.top_k > 0) {
        int64_t count = row.first(arg.top_k);
        row.weigh(count);
        const double mark = arg.top_p * sum_of(row.room.items, count);
        if (arg.min_p > 0) count = at_least(row, count, arg.min_p);
        return arg.top_p < 1 ? nucleus(row, count, mark, mark, [=] { return mark; }) : count;
    }
    // A little further than the exact bounds: their logarithms are rounded.
    const double margin = 1 + 1e-6;
    const float furthest = arg.min_p > 0 ? to_reach((1e-12 - std::log(arg.min_p) * margin) / row.slope) : kEndless;
    if (arg.top_p >= 1) {
        const int64_t count = row.within(furthest);
        row.weigh(count);
        return at_least(row, count, arg.min_p);
    }
    // Exponentials in float32 know the whole to 1e-5, and mostly that is enough to see where the nucleus ends.
    const bool rough = 1e-3 < row.slope && row.slope < 1e3;
    const double whole = rough ? row.rough_total<V>() : row.total(), error = rough ? 2e-5 : 0;
    double low = arg.top_p * whole * (1 - error), high = arg.top_p * whole * (1 + error);
    const float guess = row.reach(kFewTokens);
    int64_t count = row.within(guess < furthest ? guess : furthest);
    row.weigh(count);
    if (guess < furthest && sum_of(row.room.items, count) < high) {
        // All tokens beyond this distance together are less than the nucleus may leave out.
        const double left_out = (1 - arg.top_p) * whole / double(row.vocab);
        const float sure = to_reach((0.01 - std::log(left_out) * margin) / row.slope);
        count = row.within(sure < furthest ? sure : furthest);
        row.weigh(count);
        if (rough) low = high = arg.top_p * row.total();  // of many tokens none has a share that is beyond doubt
    }
    if (arg.min_p > 0) count = at_least(row, count, arg.min_p);
    return nucleus(row, count, low, high, [&] { return arg.top_p * row.total(); });
}

template <class V>
void choose_kernel(const ChooseArguments& arg, const Team&) {
    Row row{arg.logits, arg.vocab, SampleRoom(arg.scratch, arg.vocab)};
    row.find_most<V>();
    if (!row.finite()) {
        *arg.token = -1;
    } else if (arg.temperature == 0) {
        int64_t at = 0;
        while (row.room.tops[at / kSampleBlock] != row.most) at += kSampleBlock;
        while (row.x[at] != row.most) ++at;
        *arg.token = at;
    } else {
        row.slope = 1 / arg.temperature;
        if (row.slope > 1e308) row.slope = 1e308;  // infinity would make a NaN of the distance zero
        if (arg.top_k <= 0 && arg.top_p >= 1 && arg.min_p <= 0) {
            const double whole = row.total();
            *arg.token = draw_of_all(row, arg.draw * whole);
        } else {
            const int64_t count = truncated<V>(row, arg);
            const double mark = arg.draw * sum_of(row.room.items, count);
            *arg.token = find(row.room.items, count, row.room.spare, Mass(), [=](double sum) { return sum > mark; }).id;
        }
    }
}

template <class V>
void top_logprobs_kernel(const TopLogprobsArguments& arg, const Team&) {
    Row row{arg.logits, arg.vocab, SampleRoom(arg.scratch, arg.vocab)};
    row.find_most<V>();
    *arg.rank = 0;
    if (!row.finite()) return;
    const float most = row.most, distance = most - row.x[arg.token];
    int32_t nearer = 0;
    for (int64_t i = 0; i < arg.vocab; ++i) nearer += most - row.x[i] < distance;
    *arg.rank = nearer + 1;
    arg.tokens[0] = arg.token;
    if (arg.count > 0) {
        Item* const items = row.room.items;
        const int64_t count = row.first(arg.count);
        for (int64_t i = 0; i < count; ++i) {  // those of one key came by id, and stay so
            const Item one = items[i];
            int64_t place = i;
            for (; place > 0 && items[place - 1].key > one.key; --place) items[place] = items[place - 1];
            items[place] = one;
        }
        for (int64_t i = 0; i < count; ++i) arg.tokens[i + 1] = items[i].id;
    }
    const double normaliser = double(most) + std::log(row.total());
    for (int64_t i = 0; i <= arg.count; ++i) arg.logprobs[i] = double(row.x[arg.tokens[i]]) - normaliser;
}

}  // namespace
}  // namespace sambay
