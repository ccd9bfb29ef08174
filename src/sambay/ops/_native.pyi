"""The compiled module, csrc/bind.cpp; use it through `sambay.ops.native`."""

INTERFACE: int

def use_isa(forced: str, /) -> None: ...
def isa_in_use() -> str: ...
def obstacles() -> list[tuple[str, str]]: ...
def cpu_features() -> list[str]: ...
def kernel_origins() -> list[tuple[str, str]]: ...
def cores() -> tuple[tuple[int, int], float]: ...
def threads() -> int: ...
def set_threads(count: int, /) -> None: ...
def read_sum(words: int, count: int, /) -> int: ...
def multiply_bytes(b: int, a: int, count: int, expected: int, /) -> float: ...
def fill(words: int, count: int, value: int, /) -> None: ...
def empty_runs(calls: int, with_barrier: bool, /) -> float: ...

# The kernels of the model; addresses and sizes as in csrc/kernels/arguments.h.
MOST_QUERIES: int
MOST_WIDTH: int

class Matrix:
    def __init__(
        self, data: int, bias: int, rows: int, k: int, rows_padded: int, superblocks: int, bits: int, group: int, /
    ) -> None: ...
    @property
    def superblock_bytes(self) -> int: ...
    @property
    def k_padded(self) -> int: ...

class Sequences:
    def __init__(self, count: int, offsets: int, starts: int, slots: int, drafts: int, /) -> None: ...

class Heads:
    def __init__(
        self,
        heads: int,
        kv_heads: int,
        width: int,
        maps: int,
        scale: float,
        lam: float,
        norm: int,
        eps: float,
        norm_scale: float,
        /,
    ) -> None: ...

class Cache:
    def __init__(
        self, keys: int, values: int, key_scales: int, value_scales: int, tiles: int, kept: int, /
    ) -> None: ...

class Program:
    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def result(self) -> int: ...

def start_recording(program: Program, /) -> None: ...
def stop_recording() -> None: ...
def run_program(program: Program, out: int, threads: int, /) -> None: ...
def linear(w: Matrix, x: int, m: int, x_stride: int, out: int, out_stride: int, /) -> None: ...
def linear_rows(
    w: Matrix, first: int, count: int, x: int, m: int, x_stride: int, out: int, out_stride: int, /
) -> None: ...
def plain_linear(
    weight: int, half: bool, bias: int, rows: int, k: int, x: int, m: int, x_stride: int, out: int, out_stride: int, /
) -> None: ...
def lookup(weight: int, half: bool, rows: int, count: int, k: int, out: int, /) -> None: ...
def scale(count: int, x: int, factor: float, out: int, /) -> None: ...
def gate(m: int, width: int, x: int, x_stride: int, memory: int, memory_stride: int, out: int, /) -> None: ...
def mlp(fc1: Matrix, fc2: Matrix, x: int, m: int, x_stride: int, out: int, out_stride: int, /) -> None: ...
def embedding_rows(w: Matrix, rows: int, count: int, out: int, /) -> None: ...
def causal_conv(
    seq: Sequences, x: int, x_stride: int, taps: int, bias: int, width: int, d: int, state: int, half: bool, out: int, /
) -> None: ...
def selective_scan(
    seq: Sequences,
    u: int,
    raw: int,
    bias: int,
    a: int,
    b: int,
    c: int,
    bc_stride: int,
    skip: int,
    state: int,
    n: int,
    d: int,
    y: int,
    z: int,
    z_stride: int,
    gated: int,
    /,
) -> None: ...
def window_attention(
    seq: Sequences,
    heads: Heads,
    q: int,
    q_stride: int,
    k: int,
    v: int,
    kv_stride: int,
    cache: Cache,
    window: int,
    out: int,
) -> None: ...
def shared_attention(
    rows: int,
    seen: int,
    table_start: int,
    pages: int,
    heads: Heads,
    q: int,
    q_stride: int,
    cache: Cache,
    out: int,
) -> None: ...
def keep(
    heads: Heads,
    count: int,
    owners: int,
    places: int,
    k: int,
    k_stride: int,
    v: int,
    v_stride: int,
    cache: Cache,
) -> None: ...
def add_norm(
    m: int,
    width: int,
    hidden: int,
    mixed: int,
    scale: float,
    weight: int,
    bias: int,
    centred: bool,
    eps: float,
    out: int,
    /,
) -> None: ...
def choose(logits: int, vocab: int, wanted: list[tuple[int, float, int, float, float, float]], /) -> list[int]: ...
def top_logprobs(logits: int, vocab: int, token: int, count: int, tokens: int, logprobs: int, /) -> int: ...
def plain_scan(seq: Sequences, u: int, dt: int, a: int, b: int, c: int, bc_stride: int, d: int, y: int, /) -> None: ...
def scan_backward(
    seq: Sequences,
    u: int,
    dt: int,
    a: int,
    b: int,
    c: int,
    bc_stride: int,
    d: int,
    longest: int,
    grad_y: int,
    grad_u: int,
    grad_dt: int,
    grad_a: int,
    grad_b: int,
    grad_c: int,
    /,
) -> None: ...
