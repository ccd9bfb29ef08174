"""The peer's model: a dense transformer of Phi-4-mini's shape with random weights, in a GGUF file for llama.cpp.

Random blocks are written as they lie in the file, tensor by tensor; no weight is ever rounded from a float. The types
are those that `llama-quantize` chooses for Q4_0: Q4_0 for the matrices of the layers, Q6_K for the embedding, which
is the head as well, float32 for norms and the factors of the rotation.

Source: the specification of GGUF, and `block_q4_0` and `block_q6_K` of ggml.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sambay.bench.models import cache_directory
from sambay.errors import CheckpointError, MissingExtraError
from sambay.files import atomic_write

__all__ = ["PHI4_MINI", "PeerShape", "PeerTensor", "locate_peer", "peer_operations", "write_peer"]

_LAYOUT = 1
"""Of the file that we write; a new one makes new files."""

_SEED = 0
_Q4_0 = np.dtype([("d", "<f2"), ("codes", "u1", 16)])
_Q6_K = np.dtype([("low", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
_BLOCK = {"Q4_0": 32, "Q6_K": 256}


@dataclass(frozen=True)
class PeerShape:
    """A dense transformer in the architecture that llama.cpp calls "phi3".

    Attributes:
        name: of the shape, for file names.
        layers: blocks of attention and MLP.
        hidden: width; a multiple of 256, which is a block of Q6_K.
        heads: of the queries, each `hidden / heads` wide.
        kv_heads: of the keys and values.
        ffn: width of the gated MLP.
        vocab: tokens; the embedding is the head as well.
        rotary: numbers of a head that are rotated by its position.
        context: tokens at most.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    rotary: int
    context: int

    @property
    def kv(self) -> int:
        """Width of the keys of a token in one layer, and of its values."""
        return self.kv_heads * self.hidden // self.heads

    @property
    def token_bytes(self) -> int:
        """Bytes of the float16 cache that a token takes, in all layers."""
        return 2 * self.layers * self.kv * 2

    def tensors(self) -> list[PeerTensor]:
        """What the file has, in its order."""
        h, half = self.hidden, self.rotary // 2
        found = [
            PeerTensor("token_embd.weight", (self.vocab, h), "Q6_K", 0.02),
            PeerTensor("output_norm.weight", (h,), "F32", 1),
            PeerTensor("rope_factors_long.weight", (half,), "F32", 1),
            PeerTensor("rope_factors_short.weight", (half,), "F32", 1),
        ]
        for layer in range(self.layers):
            matrices = {
                "attn_qkv": (h + 2 * self.kv, h),
                "attn_output": (h, h),
                "ffn_up": (2 * self.ffn, h),  # with the gate
                "ffn_down": (h, self.ffn),
            }
            for name in ("attn_norm", "ffn_norm"):
                found.append(PeerTensor(f"blk.{layer}.{name}.weight", (h,), "F32", 1))
            for name, (rows, columns) in matrices.items():
                spread = 1 / math.sqrt(3 * columns)
                found.append(PeerTensor(f"blk.{layer}.{name}.weight", (rows, columns), "Q4_0", spread))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, of which a step reads nearly every one."""
        return sum(tensor.nbytes for tensor in self.tensors())

    @property
    def parameters(self) -> int:
        """Weights, the embedding counted once, without the factors of the rotation."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors()) - self.rotary


class PeerTensor(NamedTuple):
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]
    """Rows and columns, or one number; a row is contiguous."""
    type: str
    """"Q4_0", "Q6_K" or "F32"."""
    spread: float
    """Standard deviation of the weights; F32 tensors have this value everywhere."""

    @property
    def nbytes(self) -> int:
        """In the file."""
        count = math.prod(self.shape)
        if self.type == "F32":
            return 4 * count
        return count // _BLOCK[self.type] * (_Q4_0 if self.type == "Q4_0" else _Q6_K).itemsize

    def make(self, seed: int = _SEED) -> npt.NDArray[Any]:
        """Its contents: (rows, bytes of a row) uint8, or float32."""
        if self.type == "F32":
            return np.full(self.shape, self.spread, np.float32)
        dice = np.random.default_rng([seed, *self.name.encode()])
        content = dice.integers(0, 256, self.nbytes, np.uint8)
        if self.type == "Q4_0":
            fours = content.view(_Q4_0)
            fours["d"] = self.spread / math.sqrt((16**2 - 1) / 12)  # codes are even over 16 values
        else:
            sixes = content.view(_Q6_K)
            sixes["scales"] = 8 + (sixes["scales"] & 15)  # 8 to 23, so that d is no denormal number
            sixes["d"] = self.spread / math.sqrt((64**2 - 1) / 12) / 15.5
        return content.reshape(self.shape[0], -1)


PHI4_MINI = PeerShape(
    "phi4-mini", layers=32, hidden=3072, heads=24, kv_heads=8, ffn=8192, vocab=200_064, rotary=96, context=131_072
)
"""Phi-4-mini, the dense model of the size of Phi-4-mini-flash."""


def locate_peer(shape: PeerShape, progress: Callable[[int, int], None] | None = None) -> Path:
    """The file of a shape in this user's cache, written if it is not there yet.

    Args:
        shape: of the model.
        progress: called with (bytes written, bytes in all) where it is written.

    Raises:
        MissingExtraError: the package gguf is not installed.
        CheckpointError: the cache cannot be written.
    """
    described = json.dumps([_LAYOUT, _SEED, dataclasses.asdict(shape)], sort_keys=True)
    mark = hashlib.sha256(described.encode()).hexdigest()[:8]
    path = cache_directory() / "peer" / f"{shape.name}-Q4_0-{mark}.gguf"
    if not path.is_file():
        write_peer(shape, path, progress)
    return path


def write_peer(shape: PeerShape, path: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the file, whole or not at all; see the head of this file.

    Args:
        shape: of the model.
        path: of the file; its directory is made.
        progress: called with (bytes written, bytes in all).

    Raises:
        MissingExtraError: the package gguf is not installed.
        CheckpointError: it cannot be written.
    """
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "peer", "writing the peer's model") from None
    tensors, total = shape.tensors(), shape.nbytes

    def write(temporary: Path) -> None:
        writer = gguf.GGUFWriter(None, "phi3")
        _describe(writer, shape, gguf)
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.type]
            rows = () if tensor.type == "F32" else (tensor.nbytes // tensor.shape[0],)
            dtype = np.dtype(np.uint8 if rows else np.float32)
            writer.add_tensor_info(tensor.name, (tensor.shape[0], *rows), dtype, tensor.nbytes, kind)
        writer.write_header_to_file(temporary)
        try:
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            done = 0
            for tensor in tensors:
                writer.write_tensor_data(tensor.make())
                done += tensor.nbytes
                if progress is not None:
                    progress(done, total)
        finally:
            writer.close()

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, write)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the peer's model of {total / 1e9:.2f} GB cannot be written: {error.strerror or error}"
        ) from None


def _describe(writer: Any, shape: PeerShape, gguf: Any) -> None:  # noqa: ANN401 - an untyped package
    writer.add_name(f"random {shape.name}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_context_length(shape.context)
    writer.add_rope_scaling_orig_ctx_len(min(4096, shape.context))
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.rotary)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("no_vocab")  # only ids go in


def peer_operations(shape: PeerShape, length: int) -> int:
    """Operations (two for a multiply-add) that a prompt needs for the logits of its last token, as `cost` counts ours.

    The last layer's MLP and the head see one token; its attention sees all, as llama.cpp has it.

    Args:
        shape: of the model.
        length: tokens.
    """
    h = shape.hidden
    attention, mlp = h * (h + 2 * shape.kv) + h * h, 3 * h * shape.ffn
    each = shape.layers * attention + (shape.layers - 1) * mlp
    seen = length * (length + 1) // 2
    return 2 * (length * each + mlp + h * shape.vocab + shape.layers * 2 * h * seen)
