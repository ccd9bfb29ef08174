// The Python module sambay.ops._native. Buffers come as addresses: sambay/ops/native.py has checked dtype, shape and
// contiguity, and keeps the tensors alive. See CONTRIBUTING.md for what a call costs.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>

#include "bind_kernels.h"
#include "byte_products.h"
#include "cores.h"
#include "cpu.h"
#include "gil.h"
#include "pool.h"

namespace nb = nanobind;
using namespace sambay;

namespace {

// Raise it, here and in native.py, whenever a function changes: a stale build is then told apart.
constexpr int kInterface = 6;

template <class T>
T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

uint64_t read_sum(uintptr_t words, size_t count) {
    const WithoutGil release;
    const auto kernel = kernels().read_sum;
    std::atomic<uint64_t> sum{0};
    Pool::instance().run([&](const Team& team) { sum += kernel(at<const uint64_t>(words), count, team); });
    return sum;
}

// The operations a second of all threads, each of which multiplies the same small matrices `count` times; `expected` is
// the sum of their product.
double multiply_bytes(uintptr_t b, uintptr_t a, size_t count, int64_t expected) {
    const WithoutGil release;
    const auto kernel = kernels().byte_products;
    std::atomic<bool> right{true};
    const auto start = std::chrono::steady_clock::now();
    Pool::instance().run([&](const Team& team) {
        if (kernel(at<const uint8_t>(b), at<const int8_t>(a), count, team) != expected * int64_t(count)) right = false;
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return right ? kProductOperations * double(count) * Pool::instance().threads() / seconds : -1.0;
}

// Fills words as read_sum reads them, so that each thread's share is in the memory next to it.
void fill(uintptr_t words, size_t count, uint64_t value) {
    const WithoutGil release;
    Pool::instance().run([&](const Team& team) {
        const Share mine = share(team, count, 4 * 8);
        for (size_t i = mine.begin; i < mine.end; ++i) at<uint64_t>(words)[i] = value;
    });
}

// Seconds for so many calls of an empty function, with or without one barrier in each.
double empty_runs(size_t calls, bool with_barrier) {
    const WithoutGil release;
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < calls; ++i)
        Pool::instance().run([&](const Team& team) { if (with_barrier) barrier(team); });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<std::pair<std::string, std::string>> obstacles() {
    std::vector<std::pair<std::string, std::string>> all;
    for (const Isa& one : instruction_sets()) all.emplace_back(one.name, one.obstacle);
    return all;
}

std::pair<std::pair<int, int>, double> cores() {
    const Cores found = available_cores();
    return {{found.cpus, found.physical}, found.quota};
}

void set_threads(int count) {
    const WithoutGil release;
    Pool::instance().set_threads(count);
}

int threads() { return Pool::instance().threads(); }

}  // namespace

NB_MODULE(_native, m) {
    m.attr("INTERFACE") = kInterface;
    nb::module_::import_("atexit").attr("register")(nb::cpp_function(&Ending::begin));
    m.def("use_isa", &use_isa);
    m.def("isa_in_use", &isa_in_use);
    m.def("obstacles", &obstacles);
    m.def("cpu_features", &cpu_features);
    m.def("kernel_origins", &kernel_origins);
    m.def("cores", &cores);
    m.def("threads", &threads);
    m.def("set_threads", &set_threads);
    m.def("read_sum", &read_sum);
    m.def("multiply_bytes", &multiply_bytes);
    m.def("fill", &fill);
    m.def("empty_runs", &empty_runs);
    bind_kernels(m);
}
