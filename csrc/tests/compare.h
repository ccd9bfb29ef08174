// For kernel_test.cpp: buffers with poison and guards, and one implementation of a kernel compared with another.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cpu.h"
#include "pool.h"
#include "tiles.h"

namespace sambay {

// ---- what runs, for the message ---------------------------------------------------------------------------------------

inline std::string kernel_name, run_name, shape_name;

[[noreturn]] inline void fail(const std::string& what) {
    std::fprintf(stderr, "kernel_test: %s, %s, %s: %s\n", kernel_name.c_str(), run_name.c_str(), shape_name.c_str(), what.c_str());
    std::exit(1);
}

// shape("m", 3, "k", 7) is "m=3 k=7".
inline void describe(std::ostream&) {}
template <class T, class... Rest>
void describe(std::ostream& out, const char* name, const T& value, const Rest&... rest) {
    out << (out.tellp() > 0 ? " " : "") << name << "=" << value;
    describe(out, rest...);
}
template <class... All>
std::string shape(const All&... all) {
    std::ostringstream out;
    describe(out, all...);
    return out.str();
}

// ---- buffers ----------------------------------------------------------------------------------------------------------

// The address sanitizer has guards of its own, which find reads, too: its blocks are exactly as large as the buffer.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kGuard = 0;
#else
constexpr size_t kGuard = 256;
#endif
constexpr unsigned char kPoison = 0xff;  // four or two such bytes are a NaN of any floating type

inline bool poisoned(const void* at, size_t bytes) {
    const auto* p = static_cast<const unsigned char*>(at);
    for (size_t i = 0; i < bytes; ++i)
        if (p[i] != kPoison) return false;
    return true;
}

inline std::mt19937 source;
inline float normal() {
    static std::normal_distribution<float> distribution;
    return distribution(source);
}
inline int64_t below(int64_t bound) { return int64_t(source() % uint64_t(bound)); }

inline void put(float& out, float x) { out = x; }
inline void put(uint16_t& out, float x) {  // bfloat16, towards zero
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    out = uint16_t(bits >> 16);
}
inline void put(uint8_t& out, float) { out = uint8_t(source()); }
inline double value(uint8_t x) { return x; }
inline double value(int64_t x) { return double(x); }
inline double value(double x) { return x; }
inline double value(float x) { return x; }
inline double value(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}

// What a kernel made of one buffer: the elements that are its own, in order.
struct Result {
    std::string name;
    double bound;  // of the relative error of all together; 0: the same to the bit
    std::vector<double> values;
};

inline bool all(int64_t) { return true; }

// `size` elements, poison until they are filled. They begin off every alignment but their own; where kernels may rely on
// more (scratch, packed weights), `offset` is 0.
template <class T>
class Buffer {
  public:
    explicit Buffer(int64_t size, size_t offset = sizeof(T))
        : size_(size), before_(kGuard + offset), bytes_(before_ + size_t(size) * sizeof(T) + kGuard) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, bytes_) != 0) fail("out of memory");
        memory_ = static_cast<unsigned char*>(memory);
        std::memset(memory_, kPoison, bytes_);
        data_ = reinterpret_cast<T*>(memory_ + before_);
    }
    Buffer(const Buffer& other) : Buffer(other.size_, other.before_ - kGuard) {
        std::memcpy(memory_, other.memory_, bytes_);
    }
    Buffer(std::initializer_list<T> values) : Buffer(int64_t(values.size())) { std::copy(values.begin(), values.end(), data_); }
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(memory_); }

    T* data() const { return data_; }
    T& operator[](int64_t i) const { return data_[i]; }
    int64_t size() const { return size_; }

    // Elements that `where` names become normal ones, times `scale`; the others stay as they are.
    template <class Where>
    Buffer& fill(float scale, Where where) {
        for (int64_t i = 0; i < size_; ++i)
            if (where(i)) put(data_[i], scale * normal());
        return *this;
    }
    Buffer& fill(float scale = 1) { return fill(scale, all); }

    void guards(const char* name) const {
        const size_t end = before_ + size_t(size_) * sizeof(T);
        if (!poisoned(memory_, before_)) fail(std::string("wrote before ") + name);
        if (!poisoned(memory_ + end, bytes_ - end)) fail(std::string("wrote behind ") + name);
    }

    // Fails where a guard has changed, or an element that `where` does not name, or if one that it names is no number.
    template <class Where>
    Result result(const char* name, double bound, Where where) const {
        guards(name);
        Result made{name, bound, {}};
        for (int64_t i = 0; i < size_; ++i) {
            const double found = value(data_[i]);
            if (where(i) ? !std::isfinite(found) : !poisoned(data_ + i, sizeof(T)))
                fail(std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(found) + (where(i) ? "" : ", and not its own"));
            if (where(i)) made.values.push_back(found);
        }
        return made;
    }
    Result result(const char* name, double bound) const { return result(name, bound, all); }

  private:
    int64_t size_;
    size_t before_, bytes_;
    unsigned char* memory_;
    T* data_;
};

// Rows of `width` elements, `stride` from one to the next, poison between them.
struct Rows {
    int64_t width, stride;
    bool operator()(int64_t i) const { return i % stride < width; }
    int64_t size(int64_t rows) const { return (rows - 1) * stride + width; }
};
inline Buffer<float> random_rows(int64_t rows, Rows layout, float scale = 1) {
    return Buffer<float>(layout.size(rows)).fill(scale, layout);
}

// ---- comparing --------------------------------------------------------------------------------------------------------

inline void compare(const std::vector<Result>& found, const std::vector<Result>& expected) {
    for (size_t at = 0; at < expected.size(); ++at) {
        const Result &one = found[at], &other = expected[at];
        if (one.values.size() != other.values.size()) fail(one.name + " has another size");
        double error = 0, norm = 0, worst = 0;
        size_t where = 0;
        for (size_t i = 0; i < one.values.size(); ++i) {
            const double difference = std::fabs(one.values[i] - other.values[i]);
            error += difference * difference;
            norm += other.values[i] * other.values[i];
            if (difference > worst) worst = difference, where = i;
        }
        if (std::sqrt(error) <= one.bound * std::sqrt(norm)) continue;
        std::ostringstream said;
        said.precision(9);
        said << one.name << " differs by " << std::sqrt(error / norm) << " (at most " << one.bound << "), most at its element " << where
             << " of " << one.values.size() << ": " << one.values[where] << ", should be " << other.values[where];
        fail(said.str());
    }
}

// The kernels that ran, and how often they were compared, by instruction set.
struct Tally {
    std::set<std::string> kernels;
    int64_t runs = 0;
};
inline std::map<std::string, Tally> tally;

// Runs a kernel on the threads that there are now.
template <class Kernel, class Arguments>
void run(Kernel kernel, const Arguments& arguments) {
    Pool::instance().run([&](const Team& team) {
        want_emulation();
        kernel(arguments, team);
    });
}

// Instruction sets that run here, the one with tiles also where they must be emulated.
inline const std::vector<Isa>& possible_sets() {
    static const std::vector<Isa> possible = [] {
        std::vector<Isa> some;
        bool vectors = false;
        for (const Isa& isa : instruction_sets()) {
            const bool fine = isa.obstacle.empty() || (isa.name == "amx" && isa.table && vectors && emulate_tiles());
            if (fine) some.push_back(isa);
            if (isa.name == "avx512") vectors = fine;
        }
        return some;
    }();
    return possible;
}

// `one(kernel, threads)` makes outputs, runs the kernel and returns its results; inputs are the same every time.
template <class Kernel, class One>
void check(Kernel KernelTable::*entry, const std::string& what, One one) {
    shape_name = what;
    run_name = "portable on 1 thread";
    Pool::instance().set_threads(1);
    const std::vector<Result> expected = one(table_portable()->*entry, 1);
    for (int threads : {1, 2, 5}) {
        Pool::instance().set_threads(threads);
        for (const Isa& isa : possible_sets()) {
            if (!(isa.table->*entry)) continue;
            run_name = isa.name + " on " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
            compare(one(isa.table->*entry, threads), expected);
            tally[isa.name].kernels.insert(kernel_name);
            ++tally[isa.name].runs;
        }
    }
}

using Results = std::vector<Result>;

// Of sums in float32 whose order differs. Products and sums within a block of 32 are integers, and exact.
constexpr double kSums = 1e-6, kExact = 0;

}  // namespace sambay
