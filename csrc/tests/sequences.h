// Packed sequences of many kinds, for the kernels that keep a state of each.
#pragma once

#include "compare.h"
#include "kernels/arguments.h"

namespace sambay {

constexpr int64_t kSlots = 5;

struct Batch {
    int64_t count, rows = 0, longest = 0;
    Buffer<int64_t> offsets, starts, slots, drafts;

    // `guessed`: of the last tokens of each sequence; none for none.
    Batch(const std::vector<int64_t>& lengths, const std::vector<int64_t>& seen, const std::vector<int64_t>& guessed = {})
        : count(int64_t(lengths.size())), offsets(count + 1), starts(count), slots(count), drafts(int64_t(guessed.size())) {
        offsets[0] = 0;
        for (int64_t s = 0; s < count; ++s) {
            rows += lengths[size_t(s)];
            longest = most_of(longest, lengths[size_t(s)]);
            offsets[s + 1] = rows;
            starts[s] = seen[size_t(s)];
            slots[s] = kSlots - 1 - s;
            if (drafts.size()) drafts[s] = guessed[size_t(s)];
        }
    }
    Sequences view() const {
        return {count, offsets.data(), starts.data(), slots.data(), drafts.size() ? drafts.data() : nullptr};
    }
    int64_t length(int64_t s) const { return offsets[s + 1] - offsets[s]; }
    int64_t written(int64_t s) const { return drafts.size() && drafts[s] ? 0 : length(s); }  // tokens that its state takes in

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
        {{5, 1, 9}, {62, 30, 131}, {4, 0, 2}},
    };
    return all;
}
// Without the single row: there the recurrence by itself is one sum of products for all channels, which may cancel.
inline const std::vector<Batch>& longer_batches() {
    static const std::vector<Batch> all(batches().begin() + 1, batches().end());
    return all;
}

}  // namespace sambay
