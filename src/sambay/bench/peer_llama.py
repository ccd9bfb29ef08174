"""llama.cpp in this process: a model in a GGUF file, and caches of sequences that can be put at a depth.

It is called through the low-level interface of llama-cpp-python, which has one function for each of `llama.h`.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from sambay.bench.peer_model import PeerShape
from sambay.errors import BackendError, MissingExtraError

__all__ = ["UBATCH", "LlamaCaches", "LlamaModel", "cache_bytes", "load_library"]

UBATCH = 512
"""Tokens of a prompt that are computed at once: llama.cpp's own default."""

_PAD = 256
"""A cache has a multiple of so many cells for each sequence."""

_F16 = 1
"""In the numbers that ggml gives to types."""

_ERROR = 3
"""In the levels of llama.cpp's log."""


def load_library() -> Any:  # noqa: ANN401 - an untyped package
    """llama-cpp-python.

    Raises:
        MissingExtraError: it is not installed.
        BackendError: it is, and its library cannot be loaded.
    """
    try:
        import llama_cpp
    except ImportError:
        raise MissingExtraError("llama-cpp-python", "peer", "--peer llama.cpp") from None
    except (OSError, RuntimeError) as error:
        raise BackendError(
            f"llama-cpp-python is installed and its library cannot be loaded: {' '.join(str(error).split())}"
        ) from None
    if not hasattr(llama_cpp, "LLAMA_FLASH_ATTN_TYPE_ENABLED"):
        raise BackendError(
            f"llama-cpp-python {llama_cpp.__version__} is too old for --peer: pip install -U 'llama-cpp-python>=0.3.36'"
        )
    return llama_cpp


def cache_bytes(shape: PeerShape, sequences: int, tokens: int) -> int:
    """Bytes of the keys and values of sequences of so many tokens each, as llama.cpp allocates them."""
    return sequences * -(-tokens // _PAD) * _PAD * shape.token_bytes


class LlamaModel:
    """A loaded model.

    Args:
        path: of the file.
        shape: that it has.
        threads: that compute.

    Raises:
        MissingExtraError, BackendError: see `load_library`.
        BackendError: llama.cpp cannot load the file.
    """

    _log: ClassVar[Any] = None  # C holds the address of the callback: it must live as long as the process

    def __init__(self, path: Path, shape: PeerShape, threads: int) -> None:
        self.api = load_library()
        self.shape, self.threads = shape, threads
        self._errors: deque[str] = deque(maxlen=4)
        LlamaModel._log = self.api.llama_log_callback(self._listen)
        self.api.llama_log_set(LlamaModel._log, ctypes.c_void_p(0))
        self.api.llama_backend_init()
        self._path = path
        self.handle: Any = None
        self.most: int = self.api.llama_max_parallel_sequences()
        """Sequences that a context can hold."""
        self.load()

    def load(self) -> None:
        """Load it again after `close`.

        Raises:
            BackendError: llama.cpp cannot load the file.
        """
        parameters = self.api.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.handle = self.api.llama_model_load_from_file(str(self._path).encode(), parameters)
        if not self.handle:
            raise BackendError(f"llama.cpp cannot load {self._path}: {self.complaint()}")

    def _listen(self, level: int, text: bytes, _data: object) -> None:
        """Nothing is printed; the last errors are kept for the sentence that tells of a failure."""
        if level == _ERROR:
            self._errors.append(text.decode(errors="replace").strip())

    def complaint(self) -> str:
        """What llama.cpp last said about an error."""
        return "; ".join(self._errors) or "it does not say why"

    def describe(self) -> dict[str, Any]:
        """What a record says of it."""
        shape = self.shape
        return {
            "name": "llama.cpp",
            "llama-cpp-python": self.api.__version__,
            "system": self.api.llama_print_system_info().decode(errors="replace").strip(" |"),
            "threads": self.threads,
            "model": {
                "shape": shape.name,
                "parameters": shape.parameters,
                "bytes": shape.nbytes,
                "types": "Q4_0; embedding and head Q6_K; cache float16",
                "random": True,
                "layers": shape.layers,
                "hidden_size": shape.hidden,
                "context": shape.context,
            },
        }

    def close(self) -> None:
        """Give its memory back."""
        if self.handle:
            self.api.llama_model_free(self.handle)
            self.handle = None


class LlamaCaches:
    """Caches of sequences of a model: each sequence has its own, just large enough.

    Args:
        model: that they are for.
        sequences: 1 or more.
        tokens: that each can hold.
        flash: whether attention is computed in one pass ("flash attention").
        prompt: tokens that are computed in one call at most; memory for as many is set aside.

    Raises:
        BackendError: llama.cpp cannot allocate them.
    """

    def __init__(self, model: LlamaModel, sequences: int, tokens: int, *, flash: bool, prompt: int = 0) -> None:
        self._model, self._api, self._flash = model, model.api, flash
        self.sequences = sequences
        api = self._api
        room = -(-tokens // _PAD) * _PAD
        parameters = api.llama_context_default_params()
        parameters.n_ctx = sequences * room
        parameters.n_seq_max = sequences
        parameters.n_batch = max(sequences, prompt)
        parameters.n_ubatch = max(sequences, min(prompt, UBATCH))
        parameters.n_threads = parameters.n_threads_batch = model.threads
        parameters.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.kv_unified = False  # with one cache for all, attention would look at the others' tokens, too
        parameters.no_perf = True
        self._context = api.llama_init_from_model(model.handle, parameters)
        if not self._context:
            raise BackendError(
                f"llama.cpp has no context for {sequences} sequences of {tokens} tokens: {model.complaint()}"
            )
        self._memory = api.llama_get_memory(self._context)
        self._size = max(sequences, prompt)
        self._batch = api.llama_batch_init(self._size, 0, 1)
        self._lengths = [0] * sequences
        dice = np.random.default_rng(0)
        self._ids: list[int] = dice.integers(model.shape.vocab, size=4096 + self._size).tolist()
        self._at = 0

    def __enter__(self) -> LlamaCaches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        if self._context:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self._context)
            self._context = None

    def fill(self, depth: int) -> None:
        """Let every sequence be at a depth without computing its tokens: random keys and values as a saved state.

        The shortcut: llama.cpp restores a state that `llama_state_seq_get_data` might have saved after so many
        tokens, in which only the numbers are made up. Cells, positions and sizes are those of a real prompt.

        Args:
            depth: tokens before.

        Raises:
            BackendError: llama.cpp does not take the state.
        """
        for sequence in range(self.sequences):
            if depth:
                state = self.made_up_state(sequence, depth)
                address = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
                taken = self._api.llama_state_seq_set_data(self._context, address, state.nbytes, sequence)
                last = self._api.llama_memory_seq_pos_max(self._memory, sequence)
                if taken != state.nbytes or last != depth - 1:
                    raise BackendError(
                        f"llama.cpp of llama-cpp-python {self._api.__version__} does not take a state of {depth} "
                        f"tokens: {self._model.complaint()}; 0.3.36 does"
                    )
            self._lengths[sequence] = depth

    def made_up_state(self, sequence: int, depth: int) -> npt.NDArray[np.uint8]:
        """The bytes of a state of so many tokens, with keys and values between 0.5 and 1 of either sign."""
        shape = self._model.shape
        magic = int(self.real_state(sequence)[:4].view(np.uint32)[0])
        header = [magic, sequence, self.sequences, *(0,) * sequence, depth]
        for position in range(depth):
            header += (position, 1, sequence)
        header += (0 if self._flash else 1, shape.layers)
        row = shape.kv * 2
        keys = np.array([_F16, row, 0], np.uint32)  # the row is of 64 bits
        values = keys if self._flash else np.array([_F16, 2, shape.kv], np.uint32)
        numbers = depth * shape.kv
        dice = np.random.default_rng([0, sequence])
        start, part = 4 * len(header), 12 + 2 * numbers
        size = start + 2 * shape.layers * part + 4 * (self.sequences - sequence - 1)
        with tempfile.TemporaryFile() as file:  # gigabytes beside the caches, which the system can put aside
            state = np.memmap(file, np.uint8, "w+", shape=(size,))
        state[:start] = np.array(header, np.uint32).view(np.uint8)
        for place in range(2 * shape.layers):
            at = start + place * part
            state[at : at + 12] = (keys if place < shape.layers else values).view(np.uint8)
            content = state[at + 12 : at + part].view(np.uint16)
            content[:] = dice.integers(0, 1 << 16, numbers, np.uint16)
            content &= 0x83FF  # sign and fraction
            content |= 0x3800  # exponent of 0.5
        state[start + 2 * shape.layers * part :] = 0  # the other sequences have nothing
        return state

    def real_state(self, sequence: int) -> npt.NDArray[np.uint8]:
        """The bytes that llama.cpp saves of a sequence."""
        size = self._api.llama_state_seq_get_size(self._context, sequence)
        state = np.empty(size, np.uint8)
        address = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        written = self._api.llama_state_seq_get_data(self._context, address, size, sequence)
        return state[:written]

    def seek(self, sequences: int, depth: int) -> None:
        """Let the first so many sequences be at a depth that they have reached before."""
        for sequence in range(sequences):
            assert depth <= self._lengths[sequence], "a depth that was never reached"
            self._api.llama_memory_seq_rm(self._memory, sequence, depth, -1)
            self._lengths[sequence] = depth

    def step(self, sequences: int) -> npt.NDArray[np.float32]:
        """One token for each of the first sequences.

        Returns:
            (vocab,) logits of the last of them, valid until the next call.
        """
        for sequence in range(sequences):
            self._put(sequence, sequence, self._lengths[sequence], True)
            self._lengths[sequence] += 1
        return self._run(sequences)

    def prompt(self, length: int) -> npt.NDArray[np.float32]:
        """A prompt for the first sequence, after what it has, of which the last token has logits.

        Returns:
            (vocab,) logits, valid until the next call.
        """
        for place in range(length):
            self._put(place, 0, self._lengths[0] + place, place == length - 1)
        self._lengths[0] += length
        return self._run(length)

    def _put(self, place: int, sequence: int, position: int, wanted: bool) -> None:
        batch = self._batch
        batch.token[place] = self._ids[self._at + place]
        batch.pos[place] = position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = sequence
        batch.logits[place] = wanted

    def _run(self, count: int) -> npt.NDArray[np.float32]:
        self._batch.n_tokens = count
        self._at = (self._at + count) % 4096
        status = self._api.llama_decode(self._context, self._batch)
        if status:
            raise BackendError(f"llama.cpp failed with status {status}: {self._model.complaint()}")
        logits = self._api.llama_get_logits_ith(self._context, -1)  # waits for the computation
        return np.ctypeslib.as_array(logits, (self._model.shape.vocab,))
