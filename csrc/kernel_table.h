// The kernels, by name: what each takes, and a struct of pointers to one implementation of each.
//
// One translation unit per instruction set (isa_*.cpp) fills a KernelTable with what it has and leaves null what it has
// not: dispatch (cpu.cpp) takes each entry from the best instruction set that fills it. The portable one fills all.
//
// A kernel is called once by every thread of the team, at the same time, with the same arguments; it does its share
// and returns. It neither allocates nor throws. Whatever an isa_*.cpp includes must have internal linkage (static, an
// unnamed namespace) or names of its own per instruction set: of two inline functions of one name the linker keeps one,
// and that may be the one which this CPU cannot run. tests/native/test_build_install.py looks for such pairs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sambay {

// How much of a thread's share has been taken, on a cache line of its own. 0 at the beginning of every kernel.
struct alignas(64) Taken {
    std::atomic<size_t> count{0};
};
constexpr int kPhases = 2;  // shares that a kernel may deal out by in_turns()

// The threads that run a kernel together, seen from one of them.
struct Team {
    int thread;                 // 0 .. count - 1
    int count;                  // how many there are
    void (*wait)(void* pool);   // use barrier()
    void* pool;
    Taken* taken;               // kPhases times `count`
};

// Returns when all threads of the team have come here; what they wrote before is then visible to all.
static inline void barrier(const Team& team) {
    if (team.count > 1) team.wait(team.pool);
}

// The contiguous share of `total` items that is this thread's, in multiples of `unit` (the last share may end oddly).
struct Share { size_t begin, end; };
static inline Share share(const Team& team, size_t total, size_t unit) {
    const size_t units = (total + unit - 1) / unit, each = units / team.count, more = units % team.count;
    const size_t at = size_t(team.thread), first = at * each + (at < more ? at : more);
    const size_t begin = first * unit, end = (first + each + (at < more ? 1 : 0)) * unit;
    return {begin < total ? begin : total, end < total ? end : total};
}

// Calls work(begin, end) for pieces of `unit` of `total` items until all are done, by whichever thread: each works off its
// own contiguous share, in order, and then what others have not come to. Cores differ, and neighbours take some away.
template <class F>
static inline void in_turns(const Team& team, int phase, size_t total, size_t unit, F&& work) {
    if (team.count == 1) {
        if (total) work(size_t(0), total);
        return;
    }
    for (int i = 0; i < team.count; ++i) {
        const int owner = (team.thread + i) % team.count;
        const Share all = share(Team{owner, team.count, nullptr, nullptr, nullptr}, total, unit);
        std::atomic<size_t>& taken = team.taken[phase * team.count + owner].count;
        while (true) {
            const size_t begin = all.begin + taken.fetch_add(unit, std::memory_order_relaxed);
            if (begin >= all.end) break;
            work(begin, begin + unit < all.end ? begin + unit : all.end);
        }
    }
}

// The same with work(item), which must be much for one item.
template <class F>
static inline void one_by_one(const Team& team, int64_t total, F&& work) {
    in_turns(team, 0, size_t(total), 1, [&](size_t begin, size_t end) {
        for (size_t item = begin; item < end; ++item) work(int64_t(item));
    });
}

// Defined in kernels/arguments.h.
struct LinearArguments;
struct MlpArguments;
struct PlainArguments;
struct RowsArguments;
struct ConvArguments;
struct ScanArguments;
struct PlainScanArguments;
struct ScanBackwardArguments;
struct WindowArguments;
struct SharedArguments;
struct KeepArguments;
struct NormArguments;
struct LookupArguments;
struct ScaleArguments;
struct GateArguments;
struct ChooseArguments;
struct TopLogprobsArguments;

// To add a kernel: a line here, `.name = function` in the isa_*.cpp, a binding in bind.cpp. X(name, result, arguments).
#define SAMBAY_KERNELS(X)                                                                                              \
    /* The sum, modulo 2^64, of this thread's share of `count` words: as fast as memory can be read. */                \
    X(read_sum, uint64_t, (const uint64_t* words, size_t count, const Team& team))                                     \
    /* The sum of C = A B of the small matrices of byte_products.h, `count` times: as fast as bytes are multiplied. */   \
    X(byte_products, int64_t, (const uint8_t* b, const int8_t* a, size_t count, const Team& team))                     \
    X(linear, void, (const LinearArguments& arg, const Team& team))                                                    \
    X(plain_linear, void, (const PlainArguments& arg, const Team& team))                                               \
    X(mlp, void, (const MlpArguments& arg, const Team& team))                                                          \
    X(embedding_rows, void, (const RowsArguments& arg, const Team& team))                                              \
    X(causal_conv, void, (const ConvArguments& arg, const Team& team))                                                 \
    X(selective_scan, void, (const ScanArguments& arg, const Team& team))                                              \
    X(plain_scan, void, (const PlainScanArguments& arg, const Team& team))                                             \
    X(scan_backward, void, (const ScanBackwardArguments& arg, const Team& team))                                       \
    X(window_attention, void, (const WindowArguments& arg, const Team& team))                                          \
    X(shared_attention, void, (const SharedArguments& arg, const Team& team))                                          \
    X(keep, void, (const KeepArguments& arg, const Team& team))                                                        \
    X(add_norm, void, (const NormArguments& arg, const Team& team))                                                    \
    X(lookup, void, (const LookupArguments& arg, const Team& team))                                                    \
    X(scale, void, (const ScaleArguments& arg, const Team& team))                                                      \
    X(gate, void, (const GateArguments& arg, const Team& team))                                                        \
    X(choose, void, (const ChooseArguments& arg, const Team& team))                                                    \
    X(top_logprobs, void, (const TopLogprobsArguments& arg, const Team& team))

struct KernelTable {
#define SAMBAY_ENTRY(name, result, arguments) result (*name) arguments;
    SAMBAY_KERNELS(SAMBAY_ENTRY)
#undef SAMBAY_ENTRY
};

const KernelTable* table_portable();
const KernelTable* table_avx2();
const KernelTable* table_avxvnni();
const KernelTable* table_avx512();
const KernelTable* table_amx();
const KernelTable* table_neon();

}  // namespace sambay
