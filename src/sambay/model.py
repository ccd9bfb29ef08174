"""SambaY: the whole architecture, top to bottom, to be read beside the paper (arXiv 2507.06607, figure 1).

A *self-decoder* of Mamba and sliding-window attention reads every token; one full-attention layer turns what
it found into the only KV cache that grows; a *cross-decoder* of Gated Memory Units and cross-attention reads
that cache and the *memory* (the scan output of the last Mamba layer) and writes no state of its own.
Hence a prompt needs the self-decoder and the keys and values for all of its tokens, and everything else only
for the tokens whose logits are asked for: usually the last one.

Shape legend: B batch, T time, N packed tokens, R rows that ask for logits; h = hidden_size, d = d_inner,
n = d_state, r = dt_rank; H query and Hk key-value heads of width dh. The residual stream is float32
throughout, as in the released model, whatever the dtype of the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sambay import checkpoint, hub
from sambay.batch import Batch
from sambay.config import LayerRole, SambaYConfig
from sambay.errors import PromptError
from sambay.kv import cache_dtype_of
from sambay.layers import Embedding, Head, Linear, is_plain, keep_as_stored, project_rows
from sambay.ops import backend as ops
from sambay.ops.programs import Programs
from sambay.quant import stored as quantised
from sambay.quant.linear import packed_matrices
from sambay.state import PAGE_SIZE, LayerState, StatePool

__all__ = ["MLP", "Attention", "Block", "GatedMemoryUnit", "Head", "Mamba", "SambaY"]


def _norm(width: int, config: SambaYConfig) -> nn.LayerNorm | nn.RMSNorm:
    kind = nn.LayerNorm if config.norm_type == "layernorm" else nn.RMSNorm
    return kind(width, eps=config.layer_norm_eps)


class Mamba(nn.Module):
    """Mamba-1: a causal convolution and a selective scan, gated.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: SambaYConfig) -> None:
        super().__init__()
        h, d, n, r = config.hidden_size, config.d_inner, config.mamba_d_state, config.mamba_dt_rank
        self.sizes = (r, n, n)
        self.in_proj = Linear(h, 2 * d, bias=config.mamba_proj_bias)
        self.conv1d = nn.Conv1d(d, d, config.mamba_d_conv, groups=d, bias=config.mamba_conv_bias)
        self.x_proj = Linear(d, r + 2 * n, bias=False)
        self.dt_proj = Linear(r, d)
        self.A_log = nn.Parameter(torch.empty(d, n))
        self.D = nn.Parameter(torch.empty(d))
        self.out_proj = Linear(d, h, bias=config.mamba_proj_bias)
        self.derived = ops.Derived()

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Decay rates 1 to n in every channel; step sizes log-uniform in 0.001 to 0.1, as in the Mamba paper."""
        n, r = self.A_log.shape[1], self.sizes[0]
        self.A_log.copy_(torch.arange(1, n + 1, dtype=torch.float32).log().expand_as(self.A_log))
        self.D.fill_(1.0)
        self.dt_proj.weight.uniform_(-(r**-0.5), r**-0.5, generator=generator)
        step = torch.empty_like(self.dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1), generator=generator).exp()
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus

    def forward(self, x: Tensor, batch: Batch, state: LayerState | None) -> tuple[Tensor, Tensor]:
        """Mix tokens over time.

        Args:
            x: (N, h) normalised hidden states.
            batch: the sequences that the rows belong to.
            state: convolution and scan state, or None.

        Returns:
            `(out, y)`: (N, h) the layer's output, and (N, d) the scan output with the skip and before the
            gate, which in the memory layer is the memory.
        """
        u, z = self.in_proj(x).chunk(2, dim=-1)
        conv, held = self.conv1d, (None, None) if state is None else (state.conv, state.ssm)
        u = ops.causal_conv(u, conv.weight, conv.bias, batch, held[0], self.derived)
        dt, b, c = self.x_proj(u).split(self.sizes, dim=-1)
        step, bias = self._step(dt)
        gated, y = ops.selective_scan(u, step, bias, self.A_log, b, c, self.D, z, batch, held[1], self.derived)
        return self.out_proj(gated), y

    def _step(self, dt: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, r) -> (N, d) step sizes before softplus, and the bias that is still to be added, or None."""
        plain = is_plain(self.dt_proj)
        return (ops.linear(dt, self.dt_proj.weight, None), self.dt_proj.bias) if plain else (self.dt_proj(dt), None)


class Attention(nn.Module):
    """Attention of three roles: sliding window, full (owner of the shared KV cache), cross (its reader).

    Differential attention is the difference of two softmax maps: even heads form the first, odd heads the
    second, and each pair of heads attends to the concatenation of its two values.

    Args:
        config: the model's configuration.
        layer: 0-based index, which sets the initial lambda.
        role: SLIDING, FULL or CROSS.
    """

    def __init__(self, config: SambaYConfig, layer: int, role: LayerRole) -> None:
        super().__init__()
        width, maps = config.head_dim, 2 if config.differential_attention else 1
        self.shape = ops.HeadShape(config.num_attention_heads, config.num_key_value_heads, width, maps)
        self.window = config.sliding_window
        self.q_size, self.kv_size = self.shape.heads * width, self.shape.kv_heads * width
        self.derived = ops.Derived()
        out = self.q_size + (0 if role is LayerRole.CROSS else 2 * self.kv_size)
        self.Wqkv = Linear(config.hidden_size, out, bias=config.attention_bias)
        self.out_proj = Linear(self.q_size, config.hidden_size, bias=config.attention_bias)
        self.differential = config.differential_attention
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer)
        if self.differential:
            for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                setattr(self, name, nn.Parameter(torch.empty(width)))
            self.subln = nn.RMSNorm(2 * width, eps=1e-5)

    lambda_q1: nn.Parameter
    lambda_k1: nn.Parameter
    lambda_q2: nn.Parameter
    lambda_k2: nn.Parameter

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Biases zero; lambda vectors normal with deviation 0.1, as in the differential transformer."""
        for linear in (self.Wqkv, self.out_proj):
            if linear.bias is not None:
                linear.bias.zero_()
        if self.differential:
            for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
                vector.normal_(0.0, 0.1, generator=generator)

    @property
    def _norm(self) -> ops.PairNorm | None:
        """What differential attention has beyond plain attention."""
        if not self.differential:
            return None
        lambdas = (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2)
        return ops.PairNorm(lambdas, self.lambda_init, self.subln.weight, self.subln.eps or 0.0)

    def slide(self, x: Tensor, batch: Batch, state: LayerState | None) -> Tensor:
        """Sliding-window attention: (N, h) -> (N, h); the ring of `state` is read, then written."""
        q, k, v = self.Wqkv(x).split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        ring = None if state is None else state.window
        mixed = ops.window_attention(q, k, v, self.shape, self._norm, batch, self.window, ring, self.derived)
        out: Tensor = self.out_proj(mixed)
        return out

    def share(self, x: Tensor, batch: Batch, state: LayerState | None) -> tuple[Tensor | None, ops.SharedView]:
        """Full attention, which also fills the shared cache.

        Args:
            x: (N, h) normalised hidden states of all tokens: all give keys and values.
            batch: the sequences, and the rows that ask for logits: only those attend.
            state: holds the shared KV cache, which is written; or None.

        Returns:
            `(out, view)`: (R, h), or None when no row asks; and the keys and values that the cross-decoder reads.
        """
        if batch.rows is None:
            q, kv = self.Wqkv(x).split([self.q_size, 2 * self.kv_size], dim=-1)
        else:
            q = project_rows(self.Wqkv, x[batch.rows], slice(0, self.q_size))
            kv = project_rows(self.Wqkv, x, slice(self.q_size, None))
        k, v = kv.chunk(2, dim=-1)
        cache = None if state is None else state.shared
        view = ops.shared_keys_values(k, v, self.shape, self._norm, batch, cache, self.derived)
        return (self._look(q, view, batch) if batch.asking else None), view

    def cross(self, x: Tensor, view: ops.SharedView, batch: Batch) -> Tensor:
        """Cross-attention to the shared keys and values: (R, h) -> (R, h)."""
        return self._look(self.Wqkv(x), view, batch)

    def _look(self, q: Tensor, view: ops.SharedView, batch: Batch) -> Tensor:
        mixed = ops.shared_attention(q, view, self.shape, self._norm, batch, self.derived)
        out: Tensor = self.out_proj(mixed)
        return out


class GatedMemoryUnit(nn.Module):
    """Reads the memory through a gate of its own: `out_proj(memory * silu(in_proj(x)))`.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: SambaYConfig) -> None:
        super().__init__()
        self.in_proj = Linear(config.hidden_size, config.d_inner, bias=config.mamba_proj_bias)
        self.out_proj = Linear(config.d_inner, config.hidden_size, bias=config.mamba_proj_bias)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(R, h) hidden states and (R, d) memory of the same tokens -> (R, h)."""
        return cast("Tensor", self.out_proj(ops.gate(self.in_proj(x), memory)))


class MLP(nn.Module):
    """SwiGLU: `fc1` gives gate and up, `fc2(up * silu(gate))`.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: SambaYConfig) -> None:
        super().__init__()
        self.fc1 = Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, h) -> (N, h)."""
        packed = packed_matrices(self.fc1, self.fc2)
        if packed is not None and ops.served_natively(x):
            return ops.packed_mlp(x, *packed)
        gate, up = self.fc1(x).chunk(2, dim=-1)
        return cast("Tensor", self.fc2(ops.gate(gate, up)))


class Block(nn.Module):
    """One layer: a mixer and an MLP, each behind a norm and added to the float32 residual stream.

    Args:
        config: the model's configuration.
        layer: 0-based index.
        role: what the mixer does.
    """

    def __init__(self, config: SambaYConfig, layer: int, role: LayerRole) -> None:
        super().__init__()
        self.role, self.scale = role, config.residual_multiplier
        self.mixer_norm = _norm(config.hidden_size, config)
        self.mixer: Mamba | Attention | GatedMemoryUnit
        if role.is_mamba:
            self.mixer = Mamba(config)
        elif role is LayerRole.GMU:
            self.mixer = GatedMemoryUnit(config)
        else:
            self.mixer = Attention(config, layer, role)
        self.mlp_norm = _norm(config.hidden_size, config)
        self.mlp = MLP(config)

    def add(self, hidden: Tensor, mixed: Tensor, after: nn.Module) -> tuple[Tensor, Tensor]:
        """Add the mixer's output (N, h), then the MLP's, to the residual stream (N, h) float32, which goes on.

        Returns:
            The stream, and what the norm `after` this layer makes of it, in the dtype of the weights.
        """
        hidden, normed = ops.add_norm(hidden, mixed, self.scale, self.mlp_norm)
        return ops.add_norm(hidden, self.mlp(normed), self.scale, after)


LayerRunner = Callable[..., Any]
"""Calls a part of a layer: `(layer, function, *arguments)` -> what the function returns."""


def _plainly(layer: int, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - anything
    del layer
    return function(*arguments)


class SambaY(nn.Module):
    """The decoder-hybrid-decoder language model.

    Args:
        config: its shape. Parameters are initialised as muP++ asks (see `reset_parameters`) on torch's default
            device, from torch's global generator; under `torch.device("meta")` they stay without storage.
    """

    def __init__(self, config: SambaYConfig) -> None:
        super().__init__()
        self.config = config
        self._cache_dtype: torch.dtype | None = None
        self._programs = Programs()
        device = torch.empty(0).device  # the default; torch.get_default_device() of torch 2.6 knows no `with`
        with torch.device("meta"):  # the stock initialisation would be thrown away
            self.embedding: nn.Embedding = Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(Block(config, i, role) for i, role in enumerate(config.layer_plan()))
            self.final_norm = _norm(config.hidden_size, config)
            self.lm_head = Head(config)
        if device.type != "meta":
            self.to_empty(device=device)
            self.reset_parameters()

    @classmethod
    def random(
        cls,
        config: SambaYConfig,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SambaY:
        """A model with seeded random weights, made without touching torch's global generator.

        Args:
            config: its shape.
            seed: of the weights; the same seed gives the same weights on the same kind of device.
            dtype: of the weights.
            device: where they live.
        """
        with torch.device("meta"):
            model = cls(config)
        model.to(dtype).to_empty(device=device)
        model.reset_parameters(torch.Generator(device).manual_seed(seed))
        return model

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise: uniform within 1/sqrt(fan_in) (LeCun), embedding 0.02 tied or 1e-4 untied, head zero if untied.

        Args:
            generator: source of randomness, torch's global one by default.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d)):
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, (nn.LayerNorm, nn.RMSNorm, Head)):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, (Mamba, Attention)):
                module.reset_parameters(generator)
        self.embedding.weight.normal_(0.0, 0.02 if self.config.tie_word_embeddings else 1e-4, generator=generator)

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the weights; of a quantised model, of those that are not."""
        return next(self.final_norm.parameters()).dtype

    @property
    def matrix_dtype(self) -> torch.dtype:
        """Element type of the matrices that are not quantised: bfloat16 where only they have kept it."""
        return self.embedding.weight.dtype if getattr(self.embedding, "as_stored", False) else self.dtype

    @property
    def on_kernels(self) -> bool:
        """Whether it was loaded for the compiled kernels of the CPU: quantised, or with matrices of their own dtype."""
        other = quantised.is_quantised(self) or self.matrix_dtype is not self.dtype
        return self.device.type == "cpu" and other

    @property
    def cache_dtype(self) -> torch.dtype:
        """What the states keep keys and values in, unless `new_state` is told otherwise; it can be set.

        By default the dtype of the matrices; bfloat16 for a quantised model, whose weights are coarser by far.
        """
        if self._cache_dtype is not None:
            return self._cache_dtype
        return torch.bfloat16 if quantised.is_quantised(self) else self.matrix_dtype

    @cache_dtype.setter
    def cache_dtype(self, dtype: torch.dtype | str | None) -> None:
        """Set it; None for the default again."""
        self._cache_dtype = cache_dtype_of(dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.final_norm.parameters()).device

    def new_state(
        self, slots: int = 1, *, tokens: int = PAGE_SIZE, cache_dtype: torch.dtype | str | None = None
    ) -> StatePool:
        """A pool of states that fits this model: its shape, dtype and device.

        Args:
            slots: how many sequences can live at once.
            tokens: tokens of shared KV cache to begin with, over all slots; it grows when needed.
            cache_dtype: of keys and values: float32, bfloat16, float16 or int8; None for the model's `cache_dtype`.

        Raises:
            ConfigError: another dtype.
        """
        kept = cache_dtype_of(cache_dtype) or self.cache_dtype
        return StatePool(self.config, slots, dtype=self.dtype, cache_dtype=kept, device=self.device, tokens=tokens)

    def forward(
        self,
        input_ids: Tensor,
        *,
        offsets: Sequence[int] | Tensor | None = None,
        state: StatePool | None = None,
        slots: Sequence[int] | None = None,
        logits: Literal["all", "last"] = "all",
    ) -> Tensor:
        """Logits of the next token.

        Args:
            input_ids: (B, T) integer token ids, or (N,) packed ids of several documents.
            offsets: for packed ids the S+1 boundaries of the documents, from 0 to N. Nothing leaks across them.
            state: continue the sequences in this pool, without gradients, and advance them; None: they begin here.
            slots: with `state`, the open slot of each sequence (default 0, 1, ..., of which free ones are opened).
            logits: "all" positions, or only the "last" of each sequence (then a prompt runs only the layers
                that it needs).

        Returns:
            (B, T, vocab), (N, vocab) for packed ids; with `logits="last"` (B, 1, vocab) and (S, vocab). The
            dtype of the weights.

        Raises:
            PromptError: ids that are empty, of a wrong shape or type, or outside the vocabulary; bad offsets.
            ContextError: a sequence would outgrow the context.
        """
        if logits not in ("all", "last"):
            raise PromptError(f"logits is {logits!r}: it must be 'all' or 'last'")
        lengths = self._lengths(input_ids, offsets)
        wanted = lengths if logits == "all" else (1,) * len(lengths)
        ids = input_ids.reshape(-1).long()
        if state is None:
            batch = Batch.packed(ids, lengths, wanted=wanted)
        else:
            batch = state.batch(ids, lengths, None if slots is None else tuple(slots), wanted)
        out = self.run(batch, state)
        if state is not None:
            state.advance(batch)
        return out.unflatten(0, (len(lengths), -1)) if offsets is None and input_ids.ndim == 2 else out

    def _lengths(self, ids: Tensor, offsets: Sequence[int] | Tensor | None) -> tuple[int, ...]:
        """Check ids and offsets, and return the number of tokens of each sequence."""
        if ids.dtype.is_floating_point or ids.dtype is torch.bool:
            raise PromptError(f"input_ids have dtype {ids.dtype}: token ids must be integers")
        if ids.ndim not in (1, 2) or ids.numel() == 0:
            raise PromptError(
                f"input_ids have shape {tuple(ids.shape)}: give (batch, time) or packed (tokens,), not empty"
            )
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.config.vocab_size:
            bad = low if low < 0 else high
            raise PromptError(
                f"token id {bad} is outside the vocabulary: ids go from 0 to {self.config.vocab_size - 1}"
            )
        if offsets is None:
            return (ids.numel(),) if ids.ndim == 1 else (ids.shape[1],) * ids.shape[0]
        bounds = [int(x) for x in offsets]
        lengths = tuple(b - a for a, b in itertools.pairwise(bounds))
        if ids.ndim != 1 or bounds[:1] != [0] or bounds[-1] != ids.numel() or not lengths or min(lengths) < 1:
            raise PromptError(
                f"offsets {bounds[:8]} do not cut packed input_ids of shape {tuple(ids.shape)}: "
                f"they must rise from 0 to {ids.numel()}"
            )
        return lengths

    def run(
        self,
        batch: Batch,
        state: StatePool | None,
        *,
        embeddings: Tensor | None = None,
        runner: LayerRunner | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """Compute one batch.

        Args:
            batch: packed tokens (N,) and the R rows that ask for logits.
            state: the pool that holds the states of its slots, or None. Lengths are not advanced here. States
                carry no gradients, so that those of the logits would be wrong: with a state there are none.
            embeddings: (N, h) in place of those of the tokens.
            runner: calls the mixer and the MLP of every layer, as `runner(layer, function, *arguments)`; to
                recompute them in the backward pass, say. None calls them plainly.
            hidden_states: is given what goes into every layer, and the normalised result of the last.

        Returns:
            (R, vocab) logits in the dtype of the weights.

        Raises:
            PromptError: the pool was made for another model.
        """
        assert (state is None) == (batch.slots is None), "a batch of a pool and the pool go together"
        if state is not None:
            kind = self.device.type
            mixed = (torch.get_autocast_dtype(kind),) if torch.is_autocast_enabled(kind) else ()
            state.check(self.config, (self.dtype, *mixed), self.device)

        def compute(batch: Batch) -> Tensor:
            # The residual stream is written over: it must be our own.
            hidden = self.embedding(batch.input_ids).float() if embeddings is None else embeddings.float().clone()
            return self._run(hidden, batch, state, runner or _plainly, hidden_states)

        with torch.set_grad_enabled(torch.is_grad_enabled() and state is None):
            if state is None or embeddings is not None or runner is not None or hidden_states is not None:
                return compute(batch)
            return self._programs.run(self, batch, state, compute)

    def _run(
        self,
        hidden: Tensor,
        batch: Batch,
        state: StatePool | None,
        runner: LayerRunner,
        hidden_states: list[Tensor] | None,
    ) -> Tensor:
        """The architecture as the paper's figure draws it."""
        memory = view = None
        normed = ops.add_norm(hidden, None, 0.0, cast("Block", self.layers[0]).mixer_norm)[1]
        for index, block in enumerate(self.layers):
            assert isinstance(block, Block)
            if hidden_states is not None:
                hidden_states.append(hidden.clone())
            mixer, role = block.mixer, block.role
            own = None if state is None else state.layers[index]
            if isinstance(mixer, Mamba):  # self-decoder: all tokens
                mixed, memory = runner(index, mixer, normed, batch, own)
            elif isinstance(mixer, GatedMemoryUnit):  # cross-decoder: only the rows that ask
                mixed = runner(index, mixer, normed, memory)
            elif role is LayerRole.SLIDING:
                mixed = runner(index, mixer.slide, normed, batch, own)
            elif role is LayerRole.FULL:  # the border: all tokens give keys and values, the rest falls away
                mixed, view = runner(index, mixer.share, normed, batch, own)
                if mixed is None:  # in the middle of prompts: nothing is asked
                    return torch.empty(0, self.config.vocab_size, dtype=self.dtype, device=hidden.device)
                if batch.rows is not None:
                    assert memory is not None
                    hidden, memory = hidden[batch.rows], memory[batch.rows]
            else:
                assert view is not None
                mixed = runner(index, mixer.cross, normed, view, batch)
            after = self.layers[index + 1].mixer_norm if index + 1 < len(self.layers) else self.final_norm
            hidden, normed = runner(index, block.add, hidden, mixed, after)
        if hidden_states is not None:
            hidden_states.append(normed)
        logits: Tensor = self.lm_head(normed, self.embedding)
        return logits if self.config.logits_multiplier == 1 else ops.scale(logits, self.config.logits_multiplier)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        inference: bool = False,
        progress: Callable[[int, int], None] | None = None,
        torch_dtype: torch.dtype | str | None = None,
    ) -> SambaY:
        """Load a checkpoint in the Hugging Face layout.

        Args:
            model: a directory, or a model id on the hub (downloaded once).
            dtype: of the weights, or its name; None and "auto" keep what `config.json` says. Weights that already
                have it are memory-mapped, not copied.
            device: where to put them.
            inference: it will not learn. On the CPU, where there are compiled kernels, only matrices are of bfloat16
                then, if that is the dtype, and all else of float32, activations included: as exact as the weights,
                and as fast as the memory gives them.
            progress: called with (bytes done, bytes in all) while weights are read.
            torch_dtype: the old name of `dtype` in transformers; deprecated.

        Raises:
            ConfigError: a dtype that weights cannot have, or `config.json` does not describe a model of this family.
            CheckpointError: files are missing, corrupt, or do not fit the configuration.
        """
        directory = hub.resolve(model)
        config = SambaYConfig.from_json(directory / "config.json")
        with torch.device("meta"):
            out = cls(config)
        quantised.prepare(out, directory)
        wanted = checkpoint.resolve_dtype(dtype or torch_dtype) or getattr(torch, config.torch_dtype)
        matrices = wanted if inference and not quantised.is_quantised(out) and ops.widens(wanted, device) else None
        if matrices is not None:
            wanted = torch.float32
            keep_as_stored(out)
        checkpoint.load_weights(out, directory, dtype=wanted, matrices=matrices, device=device, progress=progress)
        return out.eval()

    def save_pretrained(self, directory: str | Path, *, max_shard_bytes: int = 5_000_000_000) -> None:
        """Write `config.json` and safetensors in the layout of the released checkpoint, atomically.

        A tokenizer is not part of the model: without its own `save_pretrained` into the same directory, what is
        written runs on token ids.

        Args:
            directory: made if needed.
            max_shard_bytes: a larger model is cut into shards with an index.
        """
        if quantised.is_quantised(self):
            quantised.save(self, directory)
            return
        checkpoint.save_weights(self, directory, max_shard_bytes=max_shard_bytes)
        kept = str(self.matrix_dtype).removeprefix("torch.")
        checkpoint.save_config(replace(self.config, torch_dtype=kept), directory)
