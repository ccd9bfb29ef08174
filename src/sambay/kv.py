"""Storage of keys and values: tiles of 64 tokens, one group of heads after the other, as attention reads them.

A *page* holds the keys and values of some consecutive tokens, a multiple of 64: a page of the shared cache, or the
ring of one sequence. Within it the tokens of a group of heads lie together, so that one pass over a group walks
through memory without gaps. Keys are stored with the token last: sixteen neighbouring tokens fill a vector, and the
scores of sixteen tokens need no sum across lanes. Values are stored with the width last, for the same reason.

Elements are float32, bfloat16 or float16; or signed bytes (stored with 128 added) with a float16 scale for each key
vector, and one for the values of a group: four consecutive elements of a key, or four consecutive tokens of a value,
then fill a 32-bit lane, as the byte products of the CPU take them.

Shape legend: P pages, T tokens of a page, Hk key-value heads of width dh, G = Hk / maps groups whose `maps` values
lie side by side (2 in differential attention, else 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sambay.errors import ConfigError

__all__ = [
    "CACHE_DTYPES",
    "TILE",
    "KVTiles",
    "cache_dtype_of",
    "copy_bytes",
    "entry_bytes",
    "page_slices",
    "whole_tiles",
]

TILE = 64
"""Tokens in a tile: pages are multiples of it."""

_LINE = 64
"""Bytes of a line of the processor's cache: where tensors begin."""

CACHE_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
"""Element types that keys and values can be kept in, by name."""

Index = slice | Tensor
"""Places along an axis; a slice where they adjoin, which reads a view and no copy."""


def cache_dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The element type that is meant: one, the name of one, or None for "auto" and None, which decide nothing.

    Raises:
        ConfigError: keys and values cannot be kept in it.
    """
    if dtype is None or dtype == "auto":
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in CACHE_DTYPES:
        raise ConfigError(f"the KV cache dtype is {dtype!r}: it must be one of auto, {', '.join(CACHE_DTYPES)}")
    return CACHE_DTYPES[name]


def whole_tiles(tokens: int) -> int:
    """The next multiple of `TILE`."""
    return -(-tokens // TILE) * TILE


def entry_bytes(kv_heads: int, width: int, maps: int, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of one token in one layer.

    Args:
        kv_heads: Hk.
        width: dh.
        maps: 2 in differential attention, else 1.
        dtype: of the elements.

    Raises:
        ConfigError: heads that cannot be kept so.
    """
    if dtype is torch.int8 and width % 4:
        raise ConfigError(f"a cache of int8 needs heads of a width that 4 divides, not {width}: take bfloat16")
    scales = 2 * (kv_heads + kv_heads // maps) if dtype is torch.int8 else 0
    return 2 * kv_heads * width * dtype.itemsize + scales


class KVTiles:
    """Keys and values of some pages; see the head of this file.

    Args:
        pages: P.
        tokens: T, a multiple of `TILE`.
        heads: (Hk, dh).
        maps: 2 in differential attention, else 1.
        dtype: of the elements: float32, bfloat16, float16 or int8.
        device: where they live.

    Attributes:
        keys: (P, Hk, T / 64, dh, 64), or (P, Hk, T / 64, dh / 4, 64, 4) uint8.
        values: (P, G, T, maps * dh), or (P, G, T / 4, maps * dh, 4) uint8.
        key_scales: (P, Hk, T) float16, for int8 only.
        value_scales: (P, G, T) float16, for int8 only.

    Raises:
        ConfigError: int8 with heads whose width is no multiple of 4, or another dtype.
    """

    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    def __init__(
        self,
        pages: int,
        tokens: int,
        heads: tuple[int, int],
        maps: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        assert tokens % TILE == 0
        kv_heads, width = heads
        groups, tiles, wide = kv_heads // maps, tokens // TILE, maps * width
        self.dtype, self.tokens, self.maps, self.heads = dtype, tokens, maps, heads
        entry_bytes(kv_heads, width, maps, dtype)  # refuses what cannot be
        if dtype is torch.int8:
            self.keys = _zeros((pages, kv_heads, tiles, width // 4, TILE, 4), torch.uint8, device)
            self.values = _zeros((pages, groups, tokens // 4, wide, 4), torch.uint8, device)
            self.key_scales = _zeros((pages, kv_heads, tokens), torch.float16, device)
            self.value_scales = _zeros((pages, groups, tokens), torch.float16, device)
        elif dtype in CACHE_DTYPES.values() or dtype is torch.float64:
            self.keys = _zeros((pages, kv_heads, tiles, width, TILE), dtype, device)
            self.values = _zeros((pages, groups, tokens, wide), dtype, device)
        else:
            raise ConfigError(f"a cache of {dtype}: keys and values can be {', '.join(CACHE_DTYPES)}")

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, with the page as the first axis."""
        if self.key_scales is None or self.value_scales is None:
            return self.keys, self.values
        return self.keys, self.values, self.key_scales, self.value_scales

    @property
    def page_bytes(self) -> int:
        """Bytes of a page, scales included."""
        return sum(raw.shape[1] for raw in self._raw)

    @property
    def _raw(self) -> tuple[Tensor, ...]:
        """The same memory as bytes: (P, n) each."""
        return tuple(tensor.flatten(1).view(torch.uint8) for tensor in self.tensors)

    @property
    def pages(self) -> int:
        """P."""
        return self.keys.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def grow(self, extra: int) -> None:
        """Add empty pages."""
        self.keys, self.values, *scales = (
            torch.cat([tensor, tensor.new_zeros(extra, *tensor.shape[1:])]) for tensor in self.tensors
        )
        if scales:
            self.key_scales, self.value_scales = scales

    def write(self, owners: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values.

        Args:
            owners: (N,) int64, the page of each token.
            places: (N,) int64, its place in the page.
            keys: (N, Hk, dh).
            values: (N, Hk, dh).
        """
        tiles, lanes, wide = places // TILE, places % TILE, self._groups(values)
        if self.key_scales is None or self.value_scales is None:
            self.keys[owners, :, tiles, :, lanes] = keys.to(self.dtype)
            self.values[owners, :, places] = wide.to(self.dtype)
            return
        codes, scales = _quantise(keys)
        self.keys[owners, :, tiles, :, lanes] = codes.unflatten(-1, (-1, 4))
        self.key_scales[owners, :, places] = scales
        codes, scales = _quantise(wide)
        self.values[owners, :, places // 4, :, places % 4] = codes
        self.value_scales[owners, :, places] = scales

    def read(self, owners: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens anywhere: two (..., Hk, dh), float32 where they are kept as int8.

        Args:
            owners: (...) int64, the page of each token.
            places: (...) int64, its place in the page; the shapes are broadcast together.
        """
        owners, places = torch.broadcast_tensors(owners, places)
        tiles, lanes = places // TILE, places % TILE
        if self.key_scales is None or self.value_scales is None:
            keys, values = self.keys[owners, :, tiles, :, lanes], self.values[owners, :, places]
        else:
            codes = self.keys[owners, :, tiles, :, lanes].flatten(-2)
            keys = _dequantise(codes, self.key_scales[owners, :, places])
            codes = self.values[owners, :, places // 4, :, places % 4]
            values = _dequantise(codes, self.value_scales[owners, :, places])
        return keys, values.unflatten(-1, (self.maps, -1)).flatten(-3, -2)

    def read_pages(self, pages: Index) -> tuple[Tensor, Tensor]:
        """All tokens of some pages, one page after the other: two (n * T, Hk, dh)."""
        keys, values = self.keys[pages], self.values[pages]
        if self.key_scales is None or self.value_scales is None:
            keys = keys.permute(0, 2, 4, 1, 3).flatten(0, 2)
            values = values.transpose(1, 2).flatten(0, 1)
        else:
            codes = keys.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(0, 2)
            keys = _dequantise(codes, self.key_scales[pages].transpose(1, 2).flatten(0, 1))
            codes = values.permute(0, 2, 4, 1, 3).flatten(0, 2)
            values = _dequantise(codes, self.value_scales[pages].transpose(1, 2).flatten(0, 1))
        return keys, values.unflatten(-1, (self.maps, -1)).flatten(-3, -2)

    def bytes_of(self, pages: Iterable[int]) -> list[Tensor]:
        """The memory of pages as bytes, one page after the other, in pieces: (n,) uint8 each."""
        raw = self._raw
        return [part[page] for page in pages for part in raw]

    def read_bytes(self, pages: Sequence[int]) -> Tensor:
        """A copy of what pages hold, one after the other: (len(pages) * page_bytes,) uint8."""
        return torch.cat(self.bytes_of(pages))

    def write_bytes(self, pages: Sequence[int], values: Tensor) -> None:
        """Fill pages with bytes, the last one perhaps in part: the reverse of `read_bytes`."""
        copy_bytes([values], self.bytes_of(pages))

    def rounded(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, Hk, dh) as they would be read back."""
        if self.dtype is not torch.int8:
            return keys.detach().to(self.dtype), values.detach().to(self.dtype)
        wide = self._groups(values)
        back = _dequantise(*_quantise(wide)).unflatten(-1, (self.maps, -1)).flatten(-3, -2)
        return _dequantise(*_quantise(keys)), back

    def _groups(self, values: Tensor) -> Tensor:
        """(N, Hk, dh) -> (N, G, maps * dh)."""
        wide: Tensor = values.unflatten(1, (-1, self.maps)).flatten(2)
        return wide


def copy_bytes(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
    """Copy bytes in pieces (n,) uint8 into others, which may be cut elsewhere, up to the end of either side."""
    pieces, places = iter(source), iter(target)
    piece, place = next(pieces, None), next(places, None)
    while piece is not None and place is not None:
        size = min(len(piece), len(place))
        place[:size].copy_(piece[:size])
        piece = piece[size:] if size < len(piece) else next(pieces, None)
        place = place[size:] if size < len(place) else next(places, None)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros which, on a CPU, take memory only where they are written: most of a large cache never is."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    room = np.zeros(size + _LINE, dtype=np.uint8)
    begin = -room.ctypes.data % _LINE
    return torch.from_numpy(room[begin : begin + size]).view(dtype).view(shape)


def _quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., k) -> codes (..., k) uint8 and scales (...) float16: the largest magnitude is 127 steps of 128."""
    x = x.detach().float()
    scales = (x.abs().amax(-1) / 127).half()
    steps = scales.float().unsqueeze(-1)
    # A scale of nothing is that of zeros, or of numbers too small for it. Not a number stays so by its scale.
    codes: Tensor = torch.where(steps > 0, x / steps, 0).round().clamp(-127, 127) + 128
    return codes.to(torch.uint8), scales


def _dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    values: Tensor = (codes.float() - 128) * scales.float().unsqueeze(-1)
    return values


def page_slices(table: Sequence[int], device: torch.device) -> Index:
    """The pages of a table as an index: a slice, and so a view, where they adjoin."""
    first = table[0] if table else 0
    if list(table) == list(range(first, first + len(table))):
        return slice(first, first + len(table))
    return torch.tensor(list(table), device=device)
