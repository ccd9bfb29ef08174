// Every kernel of every instruction set that this CPU has, on 1, 2 and 5 threads, against the portable one on one:
// odd shapes, NaN wherever nothing may be read or everything must be written, guards around every buffer.
//
// Prints what was compared and returns 0; at the first mismatch one line on the standard error, and 1. An argument names
// the only kernel to test. Also run under -fsanitize=address,undefined and -fsanitize=thread. Every kernel of
// kernel_table.h has a function test_NAME here; without it this file does not compile.
#include "compare.h"
#include "machine.h"
#include "sequences.h"

using namespace sambay;
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
    Packed packed{nullptr, nullptr, rows, k, (rows + 15) / 16 * 16, 0, bits, group};
    packed.k_padded = (k + packed.width() - 1) / packed.width() * packed.width();
    Weights made{Buffer<uint8_t>(packed.panels() * packed.panel_bytes(), 0), Buffer<float>(rows), packed};
    made.bias.fill();
    for (int64_t at = 0; at < made.data.size(); ++at) {
        const int64_t within = at % packed.superblock_bytes(), row = at / packed.panel_bytes() * 16 + within / 2 % 16;
        if (within >= (packed.nested() ? 32 : 64)) {  // signs and small factors may be any bytes, like codes
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
              for (int64_t row : {int64_t(0), m - 1}) {  // the same to the bit, whatever stands beside it
                  const Buffer<float> alone(rows);
                  run(kernel, LinearArguments{w.packed, x.data() + row * in.stride, 1, in.stride, alone.data(), rows, scratch.data()});
                  if (std::memcmp(alone.data(), out.data() + row * out_layout.stride, size_t(rows) * 4) != 0)
                      fail("row " + std::to_string(row) + " by itself gives something else");
              }
              return Results{out.result("out", bound, out_layout)};
          });
}

static void test_linear() {
    for (int64_t bits : {4, 6, 8}) {
        for (Numbers numbers : {Numbers::random, Numbers::whole})
            for (int64_t m : {1, 2, 4, 5, 7, 9, 16, 17, 31, 66}) {
                product(m, 5, 7, bits, 32, numbers);
                product(m, 37, 100, bits, 64, numbers);
                product(m, 150, 300, bits, 128, numbers);  // more panels than are unpacked at once
            }
        for (int64_t m : {1, 9, 25, 70}) {
            product(m, 33, 1024, bits, 32, Numbers::extreme);
            product(m, 33, 2700, bits, 32, Numbers::random);  // more k than are unpacked at once
        }
        product(260, 20, 100, bits, 32, Numbers::random);  // more rows of activations than are held at once
    }
}

static void test_mlp() {
    const struct { int64_t inner, k, rows, group; } shapes[] = {{48, 64, 16, 32}, {33, 100, 21, 64}, {100, 40, 150, 128}};
    for (const auto& [inner, k, rows, group] : shapes)
        for (int64_t bits : {4, 6, 8})
            for (int64_t m : {1, 2, 3, 9, 25, 70})
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
    for (int64_t bits : {4, 6, 8})
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
static void plain_product(int64_t m, int64_t rows, int64_t k, bool biased) {
    const Buffer<C> weight = Buffer<C>(rows * k).fill();
    const Buffer<float> bias = Buffer<float>(rows).fill();
    const Rows in{k, k + 5}, out_layout{rows, rows + 3};
    const Buffer<float> x = random_rows(m, in);
    check(&KernelTable::plain_linear, shape("m", m, "rows", rows, "k", k, "bytes", sizeof(C), "bias", biased), [&](auto kernel, int) {
        const Buffer<float> out(out_layout.size(m));
        run(kernel, PlainArguments{weight.data(), sizeof(C) == 2, biased ? bias.data() : nullptr, rows, k, x.data(), m, in.stride,
                                   out.data(), out_layout.stride});
        return Results{out.result("out", kSums, out_layout)};
    });
}

static void test_plain_linear() {
    const struct { int64_t rows, k; } shapes[] = {{5, 3}, {16, 160}, {193, 70}, {4, 48}, {9, 16}, {7, 33}, {18, 2100}};
    for (const auto& [rows, k] : shapes)
        for (int64_t m : {1, 3, 8, 50}) {
            plain_product<float>(m, rows, k, m % 2);
            plain_product<uint16_t>(m, rows, k, m % 3 == 0);
        }
}

template <class C>
static void look_up(int64_t k) {
    const Buffer<C> weight = Buffer<C>(7 * k).fill();
    Buffer<int64_t> rows(4);
    for (int64_t i = 0; i < 4; ++i) rows[i] = 5 * (i + 1) % 7;
    check(&KernelTable::lookup, shape("k", k, "bytes", sizeof(C)), [&](auto kernel, int) {
        const Buffer<float> out(4 * k);
        run(kernel, LookupArguments{weight.data(), sizeof(C) == 2, rows.data(), 4, k, out.data()});
        return Results{out.result("out", kExact)};
    });
}

static void test_lookup() {
    for (int64_t k : {3, 64}) {
        look_up<float>(k);
        look_up<uint16_t>(k);
    }
}

static void test_scale() {
    for (int64_t count : {3, 16, 33, 100}) {
        const Buffer<float> x = Buffer<float>(count).fill();
        check(&KernelTable::scale, shape("count", count), [&](auto kernel, int) {
            const Buffer<float> out(count);
            run(kernel, ScaleArguments{count, x.data(), 0.3f, out.data()});
            return Results{out.result("out", kExact)};
        });
    }
}

static void test_gate() {
    for (int64_t width : {3, 16, 33, 100})
        for (int64_t m : {1, 6}) {
            const Rows in{width, 2 * width + 1}, held{width, width + 2};
            const Buffer<float> x = random_rows(m, in), memory = random_rows(m, held);
            check(&KernelTable::gate, shape("m", m, "width", width), [&](auto kernel, int) {
                const Buffer<float> out(m * width);
                run(kernel, GateArguments{m, width, x.data(), in.stride, memory.data(), held.stride, out.data()});
                return Results{out.result("out", kSums)};
            });
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
static const HeadShape kHeadShapes[] = {{8, 4, 32, 2}, {8, 4, 16, 2}, {20, 10, 64, 2}, {6, 2, 16, 1}, {4, 4, 48, 2}, {16, 2, 128, 2},
                                        {40, 20, 16, 2}};  // more groups than are held at once for two rows

// Queries and weights in two bytes: steps of 1/32258 of the largest.
constexpr double kSplit = 1e-4;

// Pages of keys and values; `where(page, place)` names the places that hold a token: the others are poison.
template <class C>
struct Pages {
    static constexpr bool kBytes = sizeof(C) == 1;
    static constexpr Kept kKept = kBytes ? Kept::bytes : sizeof(C) == 2 ? Kept::bfloat16 : Kept::float32;
    Heads heads;
    int64_t tiles;
    Buffer<C> keys, values;
    Buffer<uint16_t> key_scales, value_scales;

    Pages(const Heads& h, int64_t pages, int64_t of)
        : heads(h), tiles(of), keys(pages * of * kTileTokens * h.token()), values(keys.size()),
          key_scales(kBytes ? pages * of * kTileTokens * h.kv_heads : 0), value_scales(kBytes ? pages * of * kTileTokens * h.groups() : 0) {}

    int64_t tokens() const { return tiles * kTileTokens; }
    int64_t wide() const { return heads.maps * heads.width; }

    // Which page and place an element belongs to.
    template <class Where>
    auto key(Where where) const {
        return [this, where](int64_t i) {
            const int64_t lane = (kBytes ? i / 4 : i) % kTileTokens, tile = i / (heads.width * kTileTokens) % tiles;
            return where(i / (tokens() * heads.token()), tile * kTileTokens + lane);
        };
    }
    template <class Where>
    auto value(Where where) const {
        return [this, where](int64_t i) {
            const int64_t place = kBytes ? i / (4 * wide()) % (tokens() / 4) * 4 + i % 4 : i / wide() % tokens();
            return where(i / (tokens() * heads.token()), place);
        };
    }
    template <class Where>
    auto scale(int64_t each, Where where) const {
        return [this, each, where](int64_t i) { return where(i / (tokens() * each), i % tokens()); };
    }

    template <class Where>
    void fill(Where where) const {
        const_cast<Buffer<C>&>(keys).fill(1, key(where));
        const_cast<Buffer<C>&>(values).fill(1, value(where));
        for (const auto& [scales, each] : {std::pair{&key_scales, heads.kv_heads}, std::pair{&value_scales, heads.groups()}})
            for (int64_t i = 0; i < scales->size(); ++i)
                if (scale(each, where)(i)) (*scales)[i] = uint16_t(0x2000 + below(0x800));  // 0.008 to 0.03
    }

    template <class Where>
    void results(Results& made, Where where) const {
        made.push_back(keys.result("keys", kExact, key(where)));
        made.push_back(values.result("values", kExact, value(where)));
        made.push_back(key_scales.result("key_scales", kExact, scale(heads.kv_heads, where)));
        made.push_back(value_scales.result("value_scales", kExact, scale(heads.groups(), where)));
    }

    Cache view() const {
        return {keys.data(), values.data(), kBytes ? key_scales.data() : nullptr, kBytes ? value_scales.data() : nullptr, tiles, kKept};
    }
};

template <class C>
static void window(const Batch& batch, const HeadShape& of, int64_t window, bool with_ring) {
    const Buffer<float> norm = Buffer<float>(of.maps * of.width).fill();
    const Heads heads = of.view(norm);
    const Pages<C> old(heads, kSlots, (window + kTileTokens - 1) / kTileTokens);
    // The places of a ring that hold a token when the sequence has so many.
    const auto held = [&](bool after) {
        return [&, after](int64_t slot, int64_t place) {
            const int64_t s = batch.owner(slot, 1);
            return s >= 0 && place < batch.starts[s] + (after ? batch.written(s) : 0);
        };
    };
    old.fill(held(false));
    const int64_t token = heads.token();
    const Rows wide{of.heads * of.width, of.heads * of.width + 7}, narrow{token, 2 * token + 5};
    const Buffer<float> q = random_rows(batch.rows, wide, 2), k = random_rows(batch.rows, narrow), v = random_rows(batch.rows, narrow);
    check(&KernelTable::window_attention, shape("batch", batch.text(), "window", window, "ring", with_ring * sizeof(C)) + " " + of.text(),
          [&](auto kernel, int threads) {
              const Pages<C> ring = old;
              const Buffer<float> out(batch.rows * wide.width);
              const int64_t step = (window_bytes(batch.longest, heads, sizeof(C)) + 63) / 64 * 64;
              const Buffer<uint8_t> scratch(step * threads, 0);
              const Cache none{nullptr, nullptr, nullptr, nullptr, 0, Pages<C>::kKept};
              run(kernel, WindowArguments{batch.view(), heads, q.data(), wide.stride, k.data(), v.data(), narrow.stride,
                                          with_ring ? ring.view() : none, window, out.data(), scratch.data(), step});
              scratch.guards("scratch");
              Results made{out.result("out", sizeof(C) == 1 ? kSplit : kSums)};
              ring.results(made, held(with_ring));
              return made;
          });
}

static void test_window_attention() {
    const int64_t windows[] = {16, 128, 50, 33, 1, 5};
    for (size_t i = 0; i < 6; ++i)
        for (const Batch& batch : batches()) {
            window<float>(batch, kHeadShapes[i], windows[i], true);
            window<uint16_t>(batch, kHeadShapes[i], windows[i], true);
            window<uint8_t>(batch, kHeadShapes[i], windows[i], true);
        }
    const Batch fresh({7, 1, 40}, {0, 0, 0});  // without a ring nothing has been seen before
    window<float>(fresh, kHeadShapes[0], 16, false);
    window<uint16_t>(fresh, kHeadShapes[3], 33, false);
}

template <class C>
static void shared(const HeadShape& of) {
    const Buffer<float> norm = Buffer<float>(of.maps * of.width).fill();
    const Heads heads = of.view(norm);
    constexpr int64_t kPages = 60;
    // The last three rows are of one sequence.
    const Buffer<int64_t> seen{1, 63, 64, 65, 3 * 64 + 5, 70, 127, 128, 129};
    const int64_t alone = seen.size() - 3;
    // Pages in a wild order; of each the tokens that are seen, and poison behind them and in the pages that nobody has.
    std::vector<int64_t> table, filled(size_t(kPages), 0);
    Buffer<int64_t> table_start(seen.size());
    for (int64_t row = 0; row < seen.size(); ++row) {
        table_start[row] = row > alone ? table_start[alone] : int64_t(table.size());
        for (int64_t at = 0; at < seen[seen.size() - 1] && row == alone; at += kTileTokens) {
            table.push_back(int64_t(table.size()) * 7 % kPages);
            filled[size_t(table.back())] = least(kTileTokens, seen[seen.size() - 1] - at);
        }
        for (int64_t at = 0; at < seen[row] && row < alone; at += kTileTokens) {
            table.push_back(int64_t(table.size()) * 7 % kPages);
            filled[size_t(table.back())] = least(kTileTokens, seen[row] - at);
        }
    }
    Buffer<int64_t> numbers(int64_t(table.size()));
    for (int64_t i = 0; i < numbers.size(); ++i) numbers[i] = table[size_t(i)];
    const Pages<C> pages(heads, kPages, 1);
    pages.fill([&](int64_t page, int64_t place) { return place < filled[size_t(page)]; });
    const Rows wide{of.heads * of.width, of.heads * of.width + 7};
    const Buffer<float> q = random_rows(seen.size(), wide, 2);
    check(&KernelTable::shared_attention, shape("bytes", sizeof(C)) + " " + of.text(), [&](auto kernel, int) {
        const Buffer<float> out(seen.size() * wide.width);
        run(kernel, SharedArguments{seen.size(), seen.data(), table_start.data(), numbers.data(), heads, q.data(), wide.stride,
                                    pages.view(), out.data()});
        return Results{out.result("out", sizeof(C) == 1 ? kSplit : kSums)};
    });
}

static void test_shared_attention() {
    for (const HeadShape& of : kHeadShapes) {
        shared<float>(of);
        shared<uint16_t>(of);
        shared<uint8_t>(of);
    }
}

template <class C>
static void keep_in(const HeadShape& of) {
    const Buffer<float> norm = Buffer<float>(of.maps * of.width).fill();
    const Heads heads = of.view(norm);
    const int64_t count = 70, token = heads.token();
    Buffer<int64_t> owners(count), places(count);
    for (int64_t i = 0; i < count; ++i) owners[i] = i % 4 - 1, places[i] = i * 5 % 128;
    const Rows narrow{token, token + 5}, wide{token, 2 * token + 1};
    const Buffer<float> k = random_rows(count, narrow), v = random_rows(count, wide, 30);
    const auto kept = [&](int64_t page, int64_t place) {
        for (int64_t i = 0; i < count; ++i)
            if (owners[i] == page && places[i] == place) return true;
        return false;
    };
    check(&KernelTable::keep, shape("bytes", sizeof(C)) + " " + of.text(), [&](auto kernel, int) {
        const Pages<C> pages(heads, 4, 2);
        run(kernel, KeepArguments{heads, count, owners.data(), places.data(), k.data(), v.data(), narrow.stride, wide.stride,
                                  pages.view()});
        Results made;
        pages.results(made, kept);
        return made;
    });
}

static void test_keep() {
    for (const HeadShape& of : {kHeadShapes[0], kHeadShapes[3], kHeadShapes[4]}) {
        keep_in<float>(of);
        keep_in<uint16_t>(of);
        keep_in<uint8_t>(of);
    }
}

// ---- the choice of a token ----------------------------------------------------------------------------------------------

static const int64_t kVocabularies[] = {1, 15, 16, 300, 5000};

static void test_choose() {
    struct { double temperature; int64_t top_k; double top_p, min_p; } rules[] = {
        {0, 0, 1, 0}, {1, 0, 1, 0}, {0.6, 0, 0.95, 0}, {1, 50, 1, 0}, {2, 0, 1, 0.05}, {0.3, 20, 0.9, 0.02},
    };
    for (int64_t vocab : kVocabularies)
        for (const auto& rule : rules)
            for (double draw : {0.0, 0.4, 0.999}) {
                const Buffer<float> logits = Buffer<float>(vocab).fill(4);
                check(&KernelTable::choose, shape("vocab", vocab, "temperature", rule.temperature, "draw", draw), [&](auto kernel, int) {
                    const Buffer<uint8_t> scratch(sample_bytes(vocab), 0);
                    const Buffer<int64_t> token(1);
                    // One thread alone calls it.
                    kernel(ChooseArguments{logits.data(), vocab, rule.temperature, least(rule.top_k, vocab), rule.top_p, rule.min_p,
                                           draw, scratch.data(), token.data()}, Team{0, 1, nullptr, nullptr, nullptr});
                    scratch.guards("scratch");
                    return Results{token.result("token", kExact)};
                });
            }
}

static void test_top_logprobs() {
    for (int64_t vocab : kVocabularies)
        for (int64_t count : {0, 1, 5}) {
            const Buffer<float> logits = Buffer<float>(vocab).fill(4);
            const int64_t some = least(count, vocab), chosen = below(vocab);
            check(&KernelTable::top_logprobs, shape("vocab", vocab, "count", count), [&](auto kernel, int) {
                const Buffer<uint8_t> scratch(sample_bytes(vocab), 0);
                const Buffer<int64_t> rank(1), tokens(some + 1);
                const Buffer<double> logprobs(some + 1);
                kernel(TopLogprobsArguments{logits.data(), vocab, chosen, some, scratch.data(), rank.data(), tokens.data(),
                                            logprobs.data()}, Team{0, 1, nullptr, nullptr, nullptr});
                scratch.guards("scratch");
                return Results{rank.result("rank", kExact), tokens.result("tokens", kExact), logprobs.result("logprobs", 1e-6)};
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
