// Packed sequences of many kinds, for the kernels that keep a state of each.
#pragma once

#include "compare.h"
#include "kernels/arguments.h"

namespace sambay {

constexpr int64_t kSlots = 5;

struct Batch {
    int64_t count, rows = 0, longest = 0;
    Buffer<int64_t> offsets, starts, slots;

    Batch(const std::vector<int64_t>& lengths, const std::vector<int64_t>& seen)
        : count(int64_t(lengths.size())), offsets(count + 1), starts(count), slots(count) {
        offsets[0] = 0;
        for (int64_t s = 0; s < count; ++s) {
            rows += lengths[size_t(s)];
            longest = most_of(longest, lengths[size_t(s)]);
            offsets[s + 1] = rows;
            starts[s] = seen[size_t(s)];
            slots[s] = kSlots - 1 - s;
        }
    }
    Sequences view() const { return {count, offsets.data(), starts.data(), slots.data()}; }
    int64_t length(int64_t s) const { return offsets[s + 1] - offsets[s]; }

    // The sequence that element i of a state belongs to, or -1; `size` elements a slot.
    int64_t owner(int64_t i, int64_t size) const {
        const int64_t s = kSlots - 1 - i / size;
        return s < count ? s : -1;
    }
    std::string text() const { return std::to_string(count) + " of " + std::to_string(rows) + " rows"; }
};

inline const std::vector<Batch>& batches() {
    static const std::vector<Batch> all = {
        {{1}, {0}}, {{5}, {0}}, {{1, 1, 1}, {3, 70, 200}}, {{7, 1, 40}, {0, 9, 130}}, {{70}, {5}},
    };
    return all;
}
// Without the single row: there the recurrence by itself is one sum of products for all channels, which may cancel.
inline const std::vector<Batch>& longer_batches() {
    static const std::vector<Batch> all(batches().begin() + 1, batches().end());
    return all;
}

}  // namespace sambay
