// The kernels of the model as Python functions. Addresses and sizes come in, in the order of the structs of
// kernels/arguments.h; sambay/ops/native_ops.py has checked them.
#include "bind_kernels.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "cpu.h"
#include "gil.h"
#include "kernels/arguments.h"
#include "pool.h"
#include "program.h"

namespace nb = nanobind;
using namespace sambay;

namespace {

using Address = uintptr_t;

template <class T>
T* at(Address address) { return reinterpret_cast<T*>(address); }

// Scratch memory of the calling thread; it only grows.
class Scratch {
  public:
    ~Scratch() { std::free(data_); }
    uint8_t* of(int64_t bytes) {
        if (bytes > size_) {
            std::free(data_);
            size_ = 0;
            data_ = static_cast<uint8_t*>(std::aligned_alloc(64, size_t((bytes + 63) / 64 * 64)));
            if (!data_) throw std::bad_alloc();
            size_ = bytes;
        }
        return data_;
    }

  private:
    uint8_t* data_ = nullptr;
    int64_t size_ = 0;
};
thread_local Scratch scratch;

// A packed matrix as Python holds it: (data, bias, rows, k, rows_padded, superblocks, bits, group).
struct Matrix {
    Packed packed;
    Matrix(Address data, Address bias, int64_t rows, int64_t k, int64_t rows_padded, int64_t superblocks, int64_t bits, int64_t group)
        : packed{at<const uint8_t>(data), at<const float>(bias), rows, k, rows_padded, 0, bits, group} {
        packed.k_padded = superblocks * packed.width();
    }
};

struct PySequences {
    Sequences value;
    PySequences(int64_t count, Address offsets, Address starts, Address slots, Address drafts)
        : value{count, at<const int64_t>(offsets), at<const int64_t>(starts), at<const int64_t>(slots), at<const int64_t>(drafts)} {}
};

struct PyHeads {
    Heads value;
    PyHeads(int64_t heads, int64_t kv_heads, int64_t width, int64_t maps, float scale, float lambda, Address norm, float eps,
            float norm_scale)
        : value{heads, kv_heads, width, maps, scale, lambda, at<const float>(norm), eps, norm_scale} {}
};

struct PyCache {
    Cache value;
    PyCache(Address keys, Address values, Address key_scales, Address value_scales, int64_t tiles, int kept)
        : value{at<void>(keys), at<void>(values), at<uint16_t>(key_scales), at<uint16_t>(value_scales), tiles, Kept(kept)} {}
};

// Multiply-adds below which a call stays on the calling thread: it is done before another thread would have come, and
// on a machine whose cores are busy (torch's threads spin, too) waiting for one costs much more.
constexpr int64_t kSmall = 1 << 16;
constexpr int64_t kSmallInProgram = 1 << 12;  // there the other threads are awake, and wait
constexpr int64_t kAlone = 0;  // for kernels of one thread
constexpr int64_t kSmallChoice = 1 << 16;  // logits

// Calls a kernel, and notes it where a program is recorded. `bytes` of scratch memory, measured for `most` threads: another
// Python thread may have raised their number since.
template <class Arguments>
void run(void (*kernel)(const Arguments&, const Team&), Arguments arguments, int64_t work, int64_t bytes = 0, int most = 1 << 30) {
    if (bytes) place(arguments, scratch.of(bytes));
    if (work < kSmall) {
        kernel(arguments, Team{0, 1, nullptr, nullptr, nullptr});
    } else {
        Pool::instance().run([&](const Team& team) {
            if (team.count > most) throw std::runtime_error("the number of threads changed during a call");
            kernel(arguments, team);
        });
    }
    if (Program* const program = Program::recording()) program->add(kernel, arguments, work < kSmallInProgram, bytes);
}

void linear(const Matrix& w, Address x, int64_t m, int64_t x_stride, Address out, int64_t out_stride) {
    const WithoutGil release;
    const int threads = Pool::instance().threads();
    run(kernels().linear, LinearArguments{w.packed, at<const float>(x), m, x_stride, at<float>(out), out_stride, nullptr},
        m * w.packed.rows * w.packed.k, linear_bytes(m, w.packed, threads), threads);
}

// Only the rows `first` to `first + count` of the matrix, multiples of sixteen.
void linear_rows(const Matrix& w, int64_t first, int64_t count, Address x, int64_t m, int64_t x_stride, Address out,
                 int64_t out_stride) {
    const WithoutGil release;
    Packed part = w.packed;
    part.data += first / 16 * part.panel_bytes();
    part.bias = part.bias ? part.bias + first : nullptr;
    part.rows = count;
    part.rows_padded = (count + 15) / 16 * 16;
    const int threads = Pool::instance().threads();
    run(kernels().linear, LinearArguments{part, at<const float>(x), m, x_stride, at<float>(out), out_stride, nullptr},
        m * part.rows * part.k, linear_bytes(m, part, threads), threads);
}

void plain_linear(Address weight, bool half, Address bias, int64_t rows, int64_t k, Address x, int64_t m, int64_t x_stride,
                  Address out, int64_t out_stride) {
    const WithoutGil release;
    run(kernels().plain_linear, PlainArguments{at<const void>(weight), half, at<const float>(bias), rows, k, at<const float>(x), m,
                                               x_stride, at<float>(out), out_stride}, m * rows * k);
}

void lookup(Address weight, bool half, Address rows, int64_t count, int64_t k, Address out) {
    const WithoutGil release;
    run(kernels().lookup, LookupArguments{at<const void>(weight), half, at<const int64_t>(rows), count, k, at<float>(out)}, count * k);
}

void scale(int64_t count, Address x, float factor, Address out) {
    const WithoutGil release;
    run(kernels().scale, ScaleArguments{count, at<const float>(x), factor, at<float>(out)}, count);
}

void gate(int64_t m, int64_t width, Address x, int64_t x_stride, Address memory, int64_t memory_stride, Address out) {
    const WithoutGil release;
    run(kernels().gate, GateArguments{m, width, at<const float>(x), x_stride, at<const float>(memory), memory_stride,
                                      at<float>(out)}, m * width * 8);
}

void mlp(const Matrix& fc1, const Matrix& fc2, Address x, int64_t m, int64_t x_stride, Address out, int64_t out_stride) {
    const WithoutGil release;
    const int threads = Pool::instance().threads();
    run(kernels().mlp, MlpArguments{fc1.packed, fc2.packed, at<const float>(x), m, x_stride, at<float>(out), out_stride, nullptr},
        3 * m * fc2.packed.rows * fc2.packed.k, mlp_bytes(m, fc1.packed, fc2.packed, threads), threads);
}

void embedding_rows(const Matrix& w, Address rows, int64_t count, Address out) {
    const WithoutGil release;
    run(kernels().embedding_rows, RowsArguments{w.packed, at<const int64_t>(rows), count, at<float>(out)}, count * w.packed.k);
}

void causal_conv(const PySequences& seq, Address x, int64_t x_stride, Address taps, Address bias, int64_t width, int64_t d,
                 Address state, bool half, Address out) {
    const WithoutGil release;
    run(kernels().causal_conv, ConvArguments{seq.value, at<const float>(x), x_stride, at<const float>(taps), at<const float>(bias),
                                             width, d, at<void>(state), half, at<float>(out)},
        seq.value.offsets[seq.value.count] * d * width);
}

void selective_scan(const PySequences& seq, Address u, Address raw, Address bias, Address a, Address b, Address c,
                    int64_t bc_stride, Address skip, Address state, int64_t n, int64_t d, Address y, Address z, int64_t z_stride,
                    Address gated) {
    const WithoutGil release;
    run(kernels().selective_scan,
        ScanArguments{seq.value, at<const float>(u), at<const float>(raw), at<const float>(bias), at<const float>(a),
                      at<const float>(b), at<const float>(c), bc_stride, at<const float>(skip), at<float>(state), n, d,
                      at<float>(y), at<const float>(z), z_stride, at<float>(gated)},
        seq.value.offsets[seq.value.count] * d * n * 4);
}

void plain_scan(const PySequences& seq, Address u, Address dt, Address a, Address b, Address c, int64_t bc_stride, int64_t d,
                Address y) {
    const WithoutGil release;
    run(kernels().plain_scan,
        PlainScanArguments{seq.value, at<const float>(u), at<const float>(dt), at<const float>(a), at<const float>(b),
                           at<const float>(c), bc_stride, d, at<float>(y)},
        seq.value.offsets[seq.value.count] * d * 64);
}

void scan_backward(const PySequences& seq, Address u, Address dt, Address a, Address b, Address c, int64_t bc_stride, int64_t d,
                   int64_t longest, Address grad_y, Address grad_u, Address grad_dt, Address grad_a, Address grad_b,
                   Address grad_c) {
    const WithoutGil release;
    const int threads = Pool::instance().threads();
    const int64_t rows = seq.value.offsets[seq.value.count];
    run(kernels().scan_backward,
        ScanBackwardArguments{seq.value, at<const float>(u), at<const float>(dt), at<const float>(a), at<const float>(b),
                              at<const float>(c), bc_stride, d, longest, at<const float>(grad_y), at<float>(grad_u),
                              at<float>(grad_dt), at<float>(grad_a), at<float>(grad_b), at<float>(grad_c), nullptr},
        rows * d * 64, scan_backward_bytes(rows, longest, threads), threads);
}

void window_attention(const PySequences& seq, const PyHeads& heads, Address q, int64_t q_stride, Address k, Address v,
                      int64_t kv_stride, const PyCache& cache, int64_t window, Address out) {
    const WithoutGil release;
    const int threads = Pool::instance().threads();
    const int64_t* offsets = seq.value.offsets;
    int64_t longest = 1;
    for (int64_t s = 0; s < seq.value.count; ++s) longest = most_of(longest, offsets[s + 1] - offsets[s]);
    const int64_t step = (window_bytes(longest, heads.value, cache.value.size()) + 63) / 64 * 64;
    run(kernels().window_attention,
        WindowArguments{seq.value, heads.value, at<const float>(q), q_stride, at<const float>(k), at<const float>(v), kv_stride,
                        cache.value, window, at<float>(out), nullptr, step},
        offsets[seq.value.count] * window * heads.value.heads * heads.value.width * 3, step * threads, threads);
}

void shared_attention(int64_t rows, Address seen, Address table_start, Address pages, const PyHeads& heads, Address q,
                      int64_t q_stride, const PyCache& cache, Address out) {
    const WithoutGil release;
    run(kernels().shared_attention,
        SharedArguments{rows, at<const int64_t>(seen), at<const int64_t>(table_start), at<const int64_t>(pages),
                        heads.value, at<const float>(q), q_stride, cache.value, at<float>(out)},
        rows * at<const int64_t>(seen)[0] * heads.value.heads * heads.value.width * 3);
}

void keep(const PyHeads& heads, int64_t count, Address owners, Address places, Address k, int64_t k_stride, Address v,
          int64_t v_stride, const PyCache& cache) {
    const WithoutGil release;
    run(kernels().keep,
        KeepArguments{heads.value, count, at<const int64_t>(owners), at<const int64_t>(places), at<const float>(k),
                      at<const float>(v), k_stride, v_stride, cache.value},
        count * heads.value.token() * 8);
}

void add_norm(int64_t m, int64_t width, Address hidden, Address mixed, float scale, Address weight, Address bias, bool centred,
              float eps, Address out) {
    const WithoutGil release;
    run(kernels().add_norm, NormArguments{m, width, at<float>(hidden), at<const float>(mixed), scale, at<const float>(weight),
                                          at<const float>(bias), centred, eps, at<float>(out)}, m * width);
}

// The row of (rows, vocab) logits that a token is chosen of: row, temperature, top_k, top_p, min_p, draw.
using Wanted = std::tuple<int64_t, double, int64_t, double, double, double>;

// One token each. A row is one thread's, and of little work nobody is woken for the others.
std::vector<int64_t> choose(Address logits, int64_t vocab, const std::vector<Wanted>& wanted) {
    const WithoutGil release;
    const int64_t count = int64_t(wanted.size()), bytes = (sample_bytes(vocab) + 63) / 64 * 64;
    std::vector<int64_t> tokens(wanted.size());
    const int most = count == 1 || count * vocab < kSmallChoice ? 1 : Pool::instance().threads();
    uint8_t* const room = scratch.of(bytes * least(count, most));
    const Team alone{0, 1, nullptr, nullptr, nullptr};
    const auto work = [&](const Team& team) {
        if (team.count > most) throw std::runtime_error("the number of threads changed during a call");
        for (int64_t i = team.thread; i < count; i += team.count) {
            const auto [row, temperature, top_k, top_p, min_p, draw] = wanted[size_t(i)];
            kernels().choose(ChooseArguments{at<const float>(logits) + row * vocab, vocab, temperature, top_k, top_p, min_p, draw,
                                             room + bytes * team.thread, &tokens[size_t(i)]}, alone);
        }
    };
    if (most == 1) work(alone);
    else Pool::instance().run(work);
    return tokens;
}

int64_t top_logprobs(Address logits, int64_t vocab, int64_t token, int64_t count, Address tokens, Address logprobs) {
    const WithoutGil release;
    int64_t rank;
    run(kernels().top_logprobs, TopLogprobsArguments{at<const float>(logits), vocab, token, count, nullptr, &rank,
                                                     at<int64_t>(tokens), at<double>(logprobs)}, kAlone, sample_bytes(vocab));
    return rank;
}

// From here on the calling thread notes the kernels that it calls.
void start_recording(Program& program) {
    if (Program::recording()) throw std::runtime_error("this thread records a program already");
    Program::recording() = &program;
}

void stop_recording() { Program::recording() = nullptr; }

// Everything again, with what the last kernel writes at `out`, unless that is 0; for as many threads as when it was
// recorded.
void run_program(Program& program, Address out, int threads) {
    const WithoutGil release;
    if (out) program.redirect(at<void>(out));
    program.run(scratch.of(program.scratch_bytes() + 1), threads);
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.attr("MOST_QUERIES") = int(kMostQueries);
    m.attr("MOST_WIDTH") = int(kMostWidth);
    nb::class_<Matrix>(m, "Matrix")
        .def(nb::init<Address, Address, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>())
        .def_prop_ro("superblock_bytes", [](const Matrix& matrix) { return matrix.packed.superblock_bytes(); })
        .def_prop_ro("k_padded", [](const Matrix& matrix) { return matrix.packed.k_padded; });
    nb::class_<PySequences>(m, "Sequences").def(nb::init<int64_t, Address, Address, Address, Address>());
    nb::class_<PyHeads>(m, "Heads")
        .def(nb::init<int64_t, int64_t, int64_t, int64_t, float, float, Address, float, float>());
    nb::class_<PyCache>(m, "Cache").def(nb::init<Address, Address, Address, Address, int64_t, int>());
    nb::class_<Program>(m, "Program").def(nb::init<>()).def("__len__", &Program::size)
        .def("result", [](const Program& program) { return reinterpret_cast<Address>(program.result()); });
    m.def("start_recording", &start_recording);
    m.def("stop_recording", &stop_recording);
    m.def("run_program", &run_program);
    m.def("linear", &linear);
    m.def("linear_rows", &linear_rows);
    m.def("mlp", &mlp);
    m.def("plain_linear", &plain_linear);
    m.def("lookup", &lookup);
    m.def("scale", &scale);
    m.def("gate", &gate);
    m.def("embedding_rows", &embedding_rows);
    m.def("causal_conv", &causal_conv);
    m.def("selective_scan", &selective_scan);
    m.def("plain_scan", &plain_scan);
    m.def("scan_backward", &scan_backward);
    m.def("window_attention", &window_attention);
    m.def("shared_attention", &shared_attention);
    m.def("keep", &keep);
    m.def("add_norm", &add_norm);
    m.def("choose", &choose);
    m.def("top_logprobs", &top_logprobs);
}
