// What the kernels take. Plain structs: the binding fills them from addresses and sizes, every instruction set reads them.
#pragma once

#include <cstdint>

#include "../kernel_table.h"

namespace sambay {

// A packed matrix of `rows` x `k`; see quant/formats.py.
struct Packed {
    const uint8_t* data;
    const float* bias;  // (rows,) or null
    int64_t rows, k, rows_padded, k_padded;  // padded to multiples of 16 and of width()
    int64_t bits, group;

    int64_t panels() const { return rows_padded / 16; }
    bool nested() const { return bits == 4 && group == 32; }  // see linear_nested.h
    int64_t width() const { return nested() ? 256 : 2 * group; }  // k of a superblock
    int64_t superblocks() const { return k_padded / width(); }
    int64_t superblock_bytes() const { return nested() ? 128 + 32 * 64 : 64 + bits * 4 * group; }
    int64_t panel_bytes() const { return superblocks() * superblock_bytes(); }
};

// out (m, rows) = x (m, k) W^T + bias; strides in elements; `scratch` of linear_bytes().
struct LinearArguments {
    Packed weight;
    const float* x;
    int64_t m, x_stride;
    float* out;
    int64_t out_stride;
    uint8_t* scratch;
};

// out (m, rows) = x (m, k) W^T + bias with plain weights (rows, k), contiguous: float32, or bfloat16 if `half`.
struct PlainArguments {
    const void* weight;
    bool half;
    const float* bias;  // (rows,) or null
    int64_t rows, k;
    const float* x;
    int64_t m, x_stride;
    float* out;
    int64_t out_stride;
};

// out = fc2(up * silu(gate)), [gate, up] = fc1(x); `scratch` of mlp_bytes().
struct MlpArguments {
    Packed fc1, fc2;
    const float* x;
    int64_t m, x_stride;
    float* out;
    int64_t out_stride;
    uint8_t* scratch;
};

// out (count, k) = rows of the matrix.
struct RowsArguments {
    Packed weight;
    const int64_t* rows;
    int64_t count;
    float* out;
};

// Packed sequences: rows offsets[s] to offsets[s + 1], starts[s] tokens seen before, state in slots[s]. The last drafts[s]
// tokens are guesses: a sequence that has any leaves its state as it is. Null: there are none.
struct Sequences {
    int64_t count;
    const int64_t *offsets, *starts, *slots;
    const int64_t* drafts = nullptr;

    bool writes(int64_t s) const { return !drafts || !drafts[s]; }
};

// out (N, d) = silu(conv(x) + bias); taps (width, d) oldest first, width at most 8; state (slots, width - 1, d) or null.
struct ConvArguments {
    Sequences seq;
    const float* x;
    int64_t x_stride;
    const float *taps, *bias;
    int64_t width, d;
    void* state;
    bool half;  // the state is bfloat16, else float32
    float* out;
};

// The recurrence of Mamba with dt = softplus(raw + bias): y (N, d), and gated = y * silu(z).
struct ScanArguments {
    Sequences seq;
    const float *u, *raw, *bias, *a, *b, *c;  // (N, d), (N, d), (d,), (n, d) negative, (N, n), (N, n)
    int64_t bc_stride;
    const float* skip;  // (d,)
    float* state;       // (slots, n, d) or null
    int64_t n, d;       // n at most 64
    float* y;
    const float* z;     // (N, d) with a stride
    int64_t z_stride;
    float* gated;
};

// The recurrence by itself, with positive step sizes, of sequences that begin here: y (N, d). n is 16.
struct PlainScanArguments {
    Sequences seq;
    const float *u, *dt, *a, *b, *c;  // (N, d), (N, d), (16, d) negative, (N, 16), (N, 16)
    int64_t bc_stride, d;
    float* y;
};

// And its gradients, given that of y.
struct ScanBackwardArguments {
    Sequences seq;
    const float *u, *dt, *a, *b, *c;
    int64_t bc_stride, d, longest;  // rows of the longest sequence
    const float* grad_y;
    float *grad_u, *grad_dt, *grad_a, *grad_b, *grad_c;
    float* scratch;  // scan_backward_bytes()
};

// Queries (rows, heads, width) float32; out (rows, heads / maps, maps * width) float32.
struct Heads {
    int64_t heads, kv_heads, width;
    int64_t maps;  // 2: differential
    float scale;   // of the scores
    float lambda;  // weight of the second map
    const float* norm;  // (maps * width,) weight of the norm over each pair, or null
    float norm_eps, norm_scale;

    int64_t groups() const { return kv_heads / maps; }
    int64_t members() const { return heads / kv_heads; }
    int64_t token() const { return kv_heads * width; }  // elements of a token in a cache
};
constexpr int kMostQueries = 16, kMostWidth = 128;  // of a group; the binding checks

// Pages of keys and values, `tiles` tiles of kTile tokens each; the layout is that of src/sambay/kv.py.
enum class Kept : int { float32, bfloat16, bytes };
constexpr int64_t kTileTokens = 64;
struct Cache {
    void *keys, *values;                   // (pages, kv_heads, tiles, width, 64), (pages, groups, tiles * 64, maps * width)
    uint16_t *key_scales, *value_scales;   // float16, for bytes: (pages, kv_heads, tiles * 64), (pages, groups, tiles * 64)
    int64_t tiles;
    Kept kept;

    int64_t size() const { return kept == Kept::float32 ? 4 : kept == Kept::bfloat16 ? 2 : 1; }
};

// The cache: a page for each slot, a ring; its keys may be null. k, v (N, kv_heads, width) float32 with a stride.
struct WindowArguments {
    Sequences seq;
    Heads heads;
    const float* q;
    int64_t q_stride;
    const float *k, *v;
    int64_t kv_stride;
    Cache cache;
    int64_t window;
    float* out;
    uint8_t* scratch;  // window_bytes()
    int64_t scratch_step;  // from thread to thread
};

// Rows that ask for logits, each with the pages of its sequence and the number of tokens it sees.
struct SharedArguments {
    int64_t rows;
    const int64_t* seen;         // (rows,)
    const int64_t* table_start;  // (rows,) into `pages`
    const int64_t* pages;        // of one tile each
    Heads heads;
    const float* q;
    int64_t q_stride;
    Cache cache;
    float* out;
};

// Put the keys and values of `count` tokens into pages `owners`, at `places`; those of an owner below 0 nowhere.
struct KeepArguments {
    Heads heads;
    int64_t count;
    const int64_t *owners, *places;
    const float *k, *v;
    int64_t k_stride, v_stride;
    Cache cache;
};

// hidden += scale * mixed (unless null); out = norm(hidden), over m rows.
struct NormArguments {
    int64_t m, width;
    float* hidden;
    const float* mixed;
    float scale;
    const float *weight, *bias;
    bool centred;  // LayerNorm, else RMSNorm
    float eps;
    float* out;
};

// out (count, k) = rows of a plain matrix, float32, or bfloat16 if `half`.
struct LookupArguments {
    const void* weight;
    bool half;
    const int64_t* rows;
    int64_t count, k;
    float* out;
};

// out (count,) = factor * x.
struct ScaleArguments {
    int64_t count;
    const float* x;
    float factor;
    float* out;
};

// out (m, width) = memory * silu(x); strides in elements.
struct GateArguments {
    int64_t m, width;
    const float* x;
    int64_t x_stride;
    const float* memory;
    int64_t memory_stride;
    float* out;
};

// The next token, given a draw from [0, 1); -1: the largest of the logits (vocab,) is not finite. This and the next
// are for one thread alone.
struct ChooseArguments {
    const float* logits;
    int64_t vocab;
    double temperature;  // 0: the largest
    int64_t top_k;       // 0: all
    double top_p, min_p, draw;
    uint8_t* scratch;    // sample_bytes()
    int64_t* token;
};

// `token` and the `count` most probable ones, in that order, with their log-probabilities; rank of the first, from 1 on,
// or 0: the largest logit is not finite, and there is no more.
struct TopLogprobsArguments {
    const float* logits;
    int64_t vocab, token, count;  // count at most vocab
    uint8_t* scratch;             // sample_bytes()
    int64_t *rank, *tokens;       // (1,), (count + 1,)
    double* logprobs;             // (count + 1,)
};

// Bytes of scratch: what one thread needs in a product, and what all share. The rest of the file is sizes.
constexpr int64_t kChunk = 2560;   // k that is unpacked at once
constexpr int64_t kPanels = 8;     // panels that are unpacked at once: with a chunk, 320 KiB of the second-level cache
constexpr int64_t kRows = 256;     // rows of activations whose results are held: (kRows, 16 * kPanels) float32
constexpr int64_t kAloneBytes = 2 * 65536 * 2;  // quantised activations that a thread makes for itself

static inline int64_t scratch_of_thread() {
    return kPanels * 16 * kChunk + kPanels * 36 * (kChunk / 64) * 4 + kRows * 16 * kPanels * 4 + kAloneBytes;
}
static inline int64_t activation_bytes(int64_t m, int64_t k) {
    return (m * k + 63) / 64 * 64 + 2 * ((m * k / 32 * 4 + 63) / 64 * 64);
}
static inline int64_t linear_bytes(int64_t m, const Packed& w, int threads) {
    return scratch_of_thread() * threads + activation_bytes(m, w.k_padded);
}
static inline int64_t mlp_bytes(int64_t m, const Packed& fc1, const Packed& fc2, int threads) {
    return linear_bytes(m, fc1, threads) + (m * fc1.rows * 4 + 63) / 64 * 64 + activation_bytes(m, fc2.k_padded);
}
static inline int64_t scan_backward_bytes(int64_t rows, int64_t longest, int threads) {
    return threads * (rows * 32 + (longest / 16 + 1) * 256) * 4;
}

constexpr int64_t kSampleBlock = 256;  // logits whose largest is noted
constexpr int64_t kItemBytes = 16;     // what is noted of a token that truncation may leave
static inline int64_t sample_blocks(int64_t vocab) { return (vocab + kSampleBlock - 1) / kSampleBlock; }
static inline int64_t sample_bytes(int64_t vocab) { return 2 * vocab * kItemBytes + sample_blocks(vocab) * (8 + 4); }

// A chunk of `longest` tokens in tiles: where it begins within its first tile is not known.
static inline int64_t window_bytes(int64_t longest, const Heads& h, int64_t size) {
    const int64_t tiles = longest / kTileTokens + 2, tokens = tiles * kTileTokens;
    return 2 * tokens * h.maps * h.width * size + tokens * (h.maps + 1) * 2 + 64;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most_of(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace sambay
