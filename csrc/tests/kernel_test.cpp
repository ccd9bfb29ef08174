// Every kernel of every instruction set that this CPU has, on 1, 2 and 5 threads, against the portable one on one:
// odd shapes, NaN wherever nothing may be read or everything must be written, guards around every buffer.
//
// Prints what was compared and returns 0; at the first mismatch one line on the standard error, and 1. An argument names
// the only kernel to test. Also run under -fsanitize=address,undefined and -fsanitize=thread. Every kernel of
// kernel_table.h has a function test_NAME here; without it this file does not compile.
#include "compare.h"
#include "kernels/arguments.h"

using namespace sambay;
using Results = std::vector<Result>;

// Of sums in float32 whose order differs. Products and sums within a block of 32 are integers, and exact.
constexpr double kSums = 1e-6, kExact = 0;

// ---- packed sequences -------------------------------------------------------------------------------------------------

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

static const std::vector<Batch>& batches() {
    static const std::vector<Batch> all = {
        {{1}, {0}}, {{5}, {0}}, {{1, 1, 1}, {3, 70, 200}}, {{7, 1, 40}, {0, 9, 130}}, {{70}, {5}},
    };
    return all;
}
// Without the single row: there the recurrence by itself is one sum of products for all channels, which may cancel.
static const std::vector<Batch>& longer_batches() {
    static const std::vector<Batch> all(batches().begin() + 1, batches().end());
    return all;
}

// ---- products with quantised weights ------------------------------------------------------------------------------------

// Random: as a model has them. Whole: integers whose sums float32 holds exactly, so that every result must be the same to
// the bit. Extreme: the same with the largest codes and activations there are.
enum class Numbers { random, whole, extreme };
static const char* name_of(Numbers numbers) {
    return numbers == Numbers::random ? "random" : numbers == Numbers::whole ? "whole" : "extreme";
}

struct Weights {
    Buffer<uint8_t> data;
    Buffer<float> bias;
    Packed packed;
};

// Scales of rows that only pad are NaN.
static Weights weights(int64_t rows, int64_t k, int64_t bits, int64_t group, Numbers numbers, bool with_bias = true) {
    const int64_t unit = 2 * group;
    Packed packed{nullptr, nullptr, rows, k, (rows + 15) / 16 * 16, (k + unit - 1) / unit * unit, bits, group};
    Weights made{Buffer<uint8_t>(packed.panels() * packed.panel_bytes(), 0), Buffer<float>(rows), packed};
    made.bias.fill();
    for (int64_t at = 0; at < made.data.size(); ++at) {
        const int64_t within = at % packed.superblock_bytes(), row = at / packed.panel_bytes() * 16 + within / 2 % 16;
        if (within >= 64) {
            made.data[at] = numbers == Numbers::extreme ? (at / 4 % 2 ? 0xff : 0) : uint8_t(source());
        } else if (within % 2 == 0 && row < rows) {
            // 1 in float16; or any number below 2, those without a leading bit among them
            const uint16_t scale = numbers == Numbers::random ? uint16_t(source() & 0xbfff) : 0x3c00;
            const bool tiny = numbers == Numbers::random && below(4) == 0;
            const uint16_t bits16 = tiny ? scale & 0x83ff : scale;
            std::memcpy(made.data.data() + at, &bits16, 2);
        }
    }
    made.packed.data = made.data.data();
    made.packed.bias = with_bias ? made.bias.data() : nullptr;
    return made;
}

static Buffer<float> activations(int64_t m, Rows layout, Numbers numbers) {
    Buffer<float> x = random_rows(m, layout);
    if (numbers == Numbers::random) return x;
    for (int64_t row = 0; row < m; ++row)
        for (int64_t i = 0; i < layout.width; ++i) {
            const bool top = numbers == Numbers::extreme || i % 32 == 0;  // 127 in every block makes its scale 1
            x[row * layout.stride + i] = float(top ? (row % 2 ? -127 : 127) : below(255) - 127);
        }
    return x;
}

static void product(int64_t m, int64_t rows, int64_t k, int64_t bits, int64_t group, Numbers numbers) {
    const Weights w = weights(rows, k, bits, group, numbers, rows % 2 == 1);
    const Rows in{k, k + 5}, out_layout{rows, rows + 3};
    const Buffer<float> x = activations(m, in, numbers);
    const double bound = numbers == Numbers::random ? kSums : kExact;
    check(&KernelTable::linear, shape("numbers", name_of(numbers), "m", m, "rows", rows, "k", k, "bits", bits, "group", group),
          [&](auto kernel, int threads) {
              const Buffer<float> out(out_layout.size(m));
              const Buffer<uint8_t> scratch(linear_bytes(m, w.packed, threads), 0);
              run(kernel, LinearArguments{w.packed, x.data(), m, in.stride, out.data(), out_layout.stride, scratch.data()});
              scratch.guards("scratch");
              return Results{out.result("out", bound, out_layout)};
          });
}

static void test_linear() {
    for (int64_t bits : {4, 8}) {
        for (Numbers numbers : {Numbers::random, Numbers::whole})
            for (int64_t m : {1, 2, 3, 4, 5, 9, 16, 23, 24, 31}) {
                product(m, 5, 7, bits, 32, numbers);
                product(m, 37, 100, bits, 64, numbers);
                product(m, 150, 300, bits, 128, numbers);  // more panels than are unpacked at once
            }
        for (int64_t m : {1, 9, 25}) {
            product(m, 33, 1024, bits, 32, Numbers::extreme);
            product(m, 33, 2700, bits, 32, Numbers::random);  // more k than are unpacked at once
        }
        product(260, 20, 100, bits, 32, Numbers::random);  // more rows of activations than are held at once
    }
}

static void test_mlp() {
    const struct { int64_t inner, k, rows, group; } shapes[] = {{48, 64, 16, 32}, {33, 100, 21, 64}, {100, 40, 150, 128}};
    for (const auto& [inner, k, rows, group] : shapes)
        for (int64_t bits : {4, 8})
            for (int64_t m : {1, 2, 3, 9, 25})
                for (bool open : {true, false}) {
                    const Numbers numbers = open ? Numbers::whole : Numbers::random;
                    const Weights fc1 = weights(2 * inner, k, bits, group, numbers), fc2 = weights(rows, inner, bits, group, Numbers::random);
                    // Gates so far open that silu gives them back: what is then rounded to codes is the same to the bit. Of
                    // other values one may lie on the edge of two codes.
                    if (open)
                        for (int64_t i = 0; i < inner; ++i) fc1.bias[i] = 1e6f;
                    const Rows in{k, k + 3}, out_layout{rows, rows + 1};
                    const Buffer<float> x = activations(m, in, numbers);
                    check(&KernelTable::mlp, shape("m", m, "k", k, "inner", inner, "rows", rows, "bits", bits, "group", group, "open", open),
                          [&](auto kernel, int threads) {
                              const Buffer<float> out(out_layout.size(m));
                              const Buffer<uint8_t> scratch(mlp_bytes(m, fc1.packed, fc2.packed, threads), 0);
                              run(kernel, MlpArguments{fc1.packed, fc2.packed, x.data(), m, in.stride, out.data(), out_layout.stride,
                                                       scratch.data()});
                              scratch.guards("scratch");
                              return Results{out.result("out", open ? kSums : 1.0 / 127, out_layout)};
                          });
                }
}

static void test_embedding_rows() {
    for (int64_t bits : {4, 8})
        for (int64_t group : {32, 64, 128}) {
            const Weights w = weights(37, 100, bits, group, Numbers::random);
            const Buffer<int64_t> rows{0, 36, 15, 16, 16, 31, 7};
            check(&KernelTable::embedding_rows, shape("bits", bits, "group", group), [&](auto kernel, int) {
                const Buffer<float> out(rows.size() * 100);
                run(kernel, RowsArguments{w.packed, rows.data(), rows.size(), out.data()});
                return Results{out.result("out", kExact)};
            });
        }
}

// ---- plain products and norms -------------------------------------------------------------------------------------------

template <class C>
static void plain_product(int64_t m, int64_t rows, int64_t k) {
    const Buffer<C> weight = Buffer<C>(rows * k).fill();
    const Rows in{k, k + 5}, out_layout{rows, rows + 3};
    const Buffer<float> x = random_rows(m, in);
    check(&KernelTable::plain_linear, shape("m", m, "rows", rows, "k", k, "bytes", sizeof(C)), [&](auto kernel, int) {
        const Buffer<float> out(out_layout.size(m));
        run(kernel, PlainArguments{weight.data(), sizeof(C) == 2, rows, k, x.data(), m, in.stride, out.data(), out_layout.stride});
        return Results{out.result("out", kSums, out_layout)};
    });
}

static void test_plain_linear() {
    const struct { int64_t rows, k; } shapes[] = {{5, 3}, {16, 160}, {193, 70}, {4, 48}, {9, 16}, {7, 33}};
    for (const auto& [rows, k] : shapes)
        for (int64_t m : {1, 3}) {
            plain_product<float>(m, rows, k);
            plain_product<uint16_t>(m, rows, k);
        }
}

static void test_add_norm() {
    for (int64_t width : {3, 16, 33, 100})
        for (int64_t m : {1, 6})
            for (int options = 0; options < 8; ++options) {
                const bool mixed = options & 1, biased = options & 2, centred = options & 4;
                const Buffer<float> hidden = Buffer<float>(m * width).fill(3), added = Buffer<float>(m * width).fill();
                const Buffer<float> weight = Buffer<float>(width).fill(), bias = Buffer<float>(width).fill();
                check(&KernelTable::add_norm, shape("m", m, "width", width, "mixed", mixed, "bias", biased, "centred", centred),
                      [&](auto kernel, int) {
                          const Buffer<float> sum = hidden, out(m * width);
                          run(kernel, NormArguments{m, width, sum.data(), mixed ? added.data() : nullptr, 0.5f, weight.data(),
                                                    biased ? bias.data() : nullptr, centred, 1e-5f, out.data()});
                          return Results{sum.result("hidden", kSums), out.result("out", kSums)};
                      });
            }
}

// ---- convolution and scan -----------------------------------------------------------------------------------------------

template <class C>
static void convolution(const Batch& batch, int64_t d, int64_t width, bool biased, bool with_state) {
    const Rows in{d, 2 * d + 1};
    const int64_t slot = (width - 1) * d;
    const auto own = [&](int64_t i) { return batch.owner(i, slot) >= 0; };
    const Buffer<float> x = random_rows(batch.rows, in), taps = Buffer<float>(d * width).fill(), bias = Buffer<float>(d).fill();
    const Buffer<C> past = Buffer<C>(kSlots * slot).fill(1, own);
    check(&KernelTable::causal_conv, shape("batch", batch.text(), "d", d, "width", width, "bias", biased, "state", with_state * sizeof(C)),
          [&](auto kernel, int) {
              const Buffer<C> state = past;
              const Buffer<float> out(batch.rows * d);
              run(kernel, ConvArguments{batch.view(), x.data(), in.stride, taps.data(), biased ? bias.data() : nullptr, width, d,
                                        with_state ? state.data() : nullptr, sizeof(C) == 2, out.data()});
              return Results{out.result("out", kSums), state.result("state", kExact, own)};
          });
}

static void test_causal_conv() {
    for (const Batch& batch : batches())
        for (int64_t d : {7, 16, 52, 97}) {
            convolution<float>(batch, d, 4, true, true);
            convolution<uint16_t>(batch, d, 4, false, true);
            convolution<float>(batch, d, 2, false, false);
            convolution<uint16_t>(batch, d, 8, true, true);
        }
}

static void scan(const Batch& batch, int64_t d, int64_t n, bool with_state, bool biased, bool gates) {
    const Rows mixed{n, 2 * n + 3}, wide{d, 2 * d};
    const auto own = [&](int64_t i) { return batch.owner(i, n * d) >= 0; };
    const Buffer<float> u = Buffer<float>(batch.rows * d).fill(), raw = Buffer<float>(batch.rows * d).fill(3), bias = Buffer<float>(d).fill();
    const Buffer<float> a = Buffer<float>(n * d).fill(), skip = Buffer<float>(d).fill(), past = Buffer<float>(kSlots * n * d).fill(1, own);
    const Buffer<float> b = random_rows(batch.rows, mixed), c = random_rows(batch.rows, mixed), z = random_rows(batch.rows, wide);
    for (int64_t i = 0; i < a.size(); ++i) a[i] = -std::exp(a[i]);
    check(&KernelTable::selective_scan, shape("batch", batch.text(), "d", d, "n", n, "state", with_state, "bias", biased, "gates", gates),
          [&](auto kernel, int) {
              const Buffer<float> state = past, y(batch.rows * d), gated(batch.rows * d);
              run(kernel, ScanArguments{batch.view(), u.data(), raw.data(), biased ? bias.data() : nullptr, a.data(), b.data(), c.data(),
                                        mixed.stride, skip.data(), with_state ? state.data() : nullptr, n, d, y.data(),
                                        gates ? z.data() : nullptr, wide.stride, gates ? gated.data() : nullptr});
              return Results{y.result("y", kSums), gated.result("gated", kSums, [gates](int64_t) { return gates; }),
                             state.result("state", kSums, own)};
          });
}

static void test_selective_scan() {
    for (const Batch& batch : batches())
        for (int64_t d : {7, 16, 52}) {
            scan(batch, d, 16, true, true, true);
            scan(batch, d, 16, false, false, false);
            scan(batch, d, 5, true, false, true);
            scan(batch, d, 64, true, true, false);
        }
}

// Inputs of the recurrence by itself.
struct Recurrence {
    Rows mixed{16, 37};
    Buffer<float> u, dt, a, b, c;
    Recurrence(int64_t rows, int64_t d)
        : u(rows * d), dt(rows * d), a(16 * d), b(random_rows(rows, mixed)), c(random_rows(rows, mixed)) {
        u.fill();
        dt.fill();
        a.fill();
        for (int64_t i = 0; i < dt.size(); ++i) dt[i] = std::log1p(std::exp(dt[i] - 1));
        for (int64_t i = 0; i < a.size(); ++i) a[i] = -std::exp(a[i]);
    }
};

static void test_plain_scan() {
    for (const Batch& batch : longer_batches())
        for (int64_t d : {7, 16, 52}) {
            const Recurrence in(batch.rows, d);
            check(&KernelTable::plain_scan, shape("batch", batch.text(), "d", d), [&](auto kernel, int) {
                const Buffer<float> y(batch.rows * d);
                run(kernel, PlainScanArguments{batch.view(), in.u.data(), in.dt.data(), in.a.data(), in.b.data(), in.c.data(),
                                               in.mixed.stride, d, y.data()});
                return Results{y.result("y", kSums)};
            });
        }
}

static void test_scan_backward() {
    for (const Batch& batch : longer_batches())
        for (int64_t d : {7, 16, 100}) {
            const Recurrence in(batch.rows, d);
            const int64_t size = batch.rows * d;
            const Buffer<float> grad_y = Buffer<float>(size).fill();
            check(&KernelTable::scan_backward, shape("batch", batch.text(), "d", d), [&](auto kernel, int threads) {
                const Buffer<float> u(size), dt(size), a(16 * d), b(16 * batch.rows), c(16 * batch.rows);
                const Buffer<float> scratch(scan_backward_bytes(batch.rows, batch.longest, threads) / 4, 0);
                run(kernel, ScanBackwardArguments{batch.view(), in.u.data(), in.dt.data(), in.a.data(), in.b.data(), in.c.data(),
                                                  in.mixed.stride, d, batch.longest, grad_y.data(), u.data(), dt.data(), a.data(),
                                                  b.data(), c.data(), scratch.data()});
                scratch.guards("scratch");
                return Results{u.result("grad_u", kSums), dt.result("grad_dt", kSums), a.result("grad_a", kSums),
                               b.result("grad_b", kSums), c.result("grad_c", kSums)};
            });
        }
}

// ---- attention ----------------------------------------------------------------------------------------------------------

struct HeadShape {
    int64_t heads, kv_heads, width, maps;
    std::string text() const { return shape("heads", heads, "kv", kv_heads, "width", width, "maps", maps); }
    Heads view(const Buffer<float>& norm) const {
        const float scale = 1 / std::sqrt(float(width));
        return {heads, kv_heads, width, maps, scale, 0.3f, maps == 2 ? norm.data() : nullptr, 1e-5f, 0.6f};
    }
};
static const HeadShape kHeadShapes[] = {{8, 4, 32, 2}, {8, 4, 16, 2}, {20, 10, 64, 2}, {6, 2, 16, 1}, {4, 4, 48, 2}, {16, 2, 128, 2}};

template <class C>
static void window(const Batch& batch, const HeadShape& of, int64_t window, bool with_ring) {
    const Buffer<float> norm = Buffer<float>(of.maps * of.width).fill();
    const Heads heads = of.view(norm);
    const int64_t token = heads.token(), slot = window * token;
    // The places of a ring that hold a token when the sequence has so many.
    const auto held = [&](int64_t i, bool after) {
        const int64_t s = batch.owner(i, slot);
        return s >= 0 && i % slot / token < batch.starts[s] + (after ? batch.length(s) : 0);
    };
    const Rows wide{of.heads * of.width, of.heads * of.width + 7}, narrow{token, 2 * token + 5};
    const Buffer<float> q = random_rows(batch.rows, wide, 2), k = random_rows(batch.rows, narrow), v = random_rows(batch.rows, narrow);
    Buffer<C> old_keys(kSlots * slot), old_values(kSlots * slot);
    for (Buffer<C>* one : {&old_keys, &old_values}) one->fill(1, [&](int64_t i) { return held(i, false); });
    check(&KernelTable::window_attention, shape("batch", batch.text(), "window", window, "ring", with_ring * sizeof(C)) + " " + of.text(),
          [&](auto kernel, int) {
              const Buffer<C> keys = old_keys, values = old_values;
              const Buffer<float> out(batch.rows * wide.width);
              const Buffer<uint8_t> scratch(window_bytes(batch.rows, heads), 0);
              run(kernel, WindowArguments{batch.view(), heads, q.data(), wide.stride, k.data(), v.data(), narrow.stride,
                                          with_ring ? keys.data() : nullptr, with_ring ? values.data() : nullptr, sizeof(C) == 2,
                                          window, out.data(), scratch.data()});
              scratch.guards("scratch");
              const auto own = [&](int64_t i) { return held(i, with_ring); };
              return Results{out.result("out", kSums), keys.result("keys", kExact, own), values.result("values", kExact, own)};
          });
}

static void test_window_attention() {
    const int64_t windows[] = {16, 128, 50, 33, 1, 5};
    for (size_t i = 0; i < 6; ++i)
        for (const Batch& batch : batches()) {
            window<float>(batch, kHeadShapes[i], windows[i], true);
            window<uint16_t>(batch, kHeadShapes[i], windows[i], true);
        }
    const Batch fresh({7, 1, 40}, {0, 0, 0});  // without a ring nothing has been seen before
    window<float>(fresh, kHeadShapes[0], 16, false);
    window<uint16_t>(fresh, kHeadShapes[3], 33, false);
}

template <class C>
static void shared(const HeadShape& of, int64_t page_size) {
    const Buffer<float> norm = Buffer<float>(of.maps * of.width).fill();
    const Heads heads = of.view(norm);
    const int64_t token = heads.token(), page = page_size * token, pages = 60;
    const Buffer<int64_t> seen{1, page_size - 1, page_size, page_size + 1, 3 * page_size + 5, 70};
    // Pages in a wild order; of each the tokens that are seen, and poison behind them and in the pages that nobody has.
    std::vector<int64_t> table, filled(size_t(pages), 0);
    Buffer<int64_t> table_start(seen.size());
    for (int64_t row = 0; row < seen.size(); ++row) {
        table_start[row] = int64_t(table.size());
        for (int64_t at = 0; at < seen[row]; at += page_size) {
            const int64_t here = int64_t(table.size()) * 7 % pages;
            table.push_back(here);
            filled[size_t(here)] = least(page_size, seen[row] - at);
        }
    }
    Buffer<int64_t> numbers(int64_t(table.size()));
    for (int64_t i = 0; i < numbers.size(); ++i) numbers[i] = table[size_t(i)];
    const auto own = [&](int64_t i) { return i % page / token < filled[size_t(i / page)]; };
    const Buffer<C> keys = Buffer<C>(pages * page).fill(1, own), values = Buffer<C>(pages * page).fill(1, own);
    const Rows wide{of.heads * of.width, of.heads * of.width + 7};
    const Buffer<float> q = random_rows(seen.size(), wide, 2);
    check(&KernelTable::shared_attention, shape("page", page_size, "bytes", sizeof(C)) + " " + of.text(), [&](auto kernel, int) {
        const Buffer<float> out(seen.size() * wide.width);
        run(kernel, SharedArguments{seen.size(), seen.data(), table_start.data(), numbers.data(), page_size, heads, q.data(),
                                    wide.stride, keys.data(), values.data(), sizeof(C) == 2, out.data()});
        return Results{out.result("out", kSums)};
    });
}

static void test_shared_attention() {
    for (const HeadShape& of : kHeadShapes)
        for (int64_t page_size : {64, 5}) {
            shared<float>(of, page_size);
            shared<uint16_t>(of, page_size);
        }
}

// ---- memory -------------------------------------------------------------------------------------------------------------

static void test_read_sum() {
    for (int64_t count : {0, 1, 31, 32, 1000, 4099}) {
        const Buffer<uint64_t> words(count);
        for (int64_t i = 0; i < count; ++i) words[i] = uint64_t(source()) << 32 | source();
        check(&KernelTable::read_sum, shape("count", count), [&](auto kernel, int threads) {
            std::vector<uint64_t> sums(size_t(threads), 0);
            Pool::instance().run([&](const Team& team) { sums[size_t(team.thread)] = kernel(words.data(), size_t(count), team); });
            uint64_t sum = 0;
            for (uint64_t one : sums) sum += one;
            return Results{{"sum", kExact, {double(sum >> 32), double(sum & 0xffffffffu)}}};
        });
    }
}

int main(int argc, char** argv) {
    const struct { const char* name; void (*test)(); } tests[] = {
#define SAMBAY_TEST(name, result, arguments) {#name, test_##name},
        SAMBAY_KERNELS(SAMBAY_TEST)
#undef SAMBAY_TEST
    };
    for (const auto& [name, test] : tests) {
        if (argc > 1 && name != std::string(argv[1])) continue;
        kernel_name = name;
        source.seed(1);
        test();
    }
    for (const auto& [isa, of] : tally) std::printf("%s: %zu kernels, %lld runs\n", isa.c_str(), of.kernels.size(), (long long)of.runs);
    return tally.empty();
}
