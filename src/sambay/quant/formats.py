"""The packed layout of a quantised matrix: exactly the bytes that the kernels read, memory-mapped, never repacked.

A matrix W (rows, k), of the product y = x W', is cut into panels of 16 rows and superblocks of 2 * group
columns; rows are padded to 16 and columns to 2 * group by weights of value 0. Each weight is `code * scale`,
the scale float16, one per row and group of columns. The buffer is uint8 of shape (panels, superblocks, nbytes),
contiguous; a superblock holds, for its 16 rows r and 2 * group columns:

    bytes 0..31    the scales of its first group, r = 0..15, little-endian float16
    bytes 32..63   those of its second group
    4 bits         for j in 0..group/4-1, for r, for i in 0..3: u[r, 4j+i] | u[r, group+4j+i] << 4, u = code + 8
    6 bits         the lower four of u = code + 32 in the same way; then the upper two, h = u >> 4: for j in
                   0..group/8-1, for r, for i in 0..3:
                   h[r, 8j+i] | h[r, group+8j+i] << 2 | h[r, 8j+4+i] << 4 | h[r, group+8j+4+i] << 6
    8 bits         for j in 0..group/2-1, for r, for i in 0..3: u[r, 4j+i], u = code + 128

so that one 32-bit lane per row holds four consecutive columns, and a thread reads one stream.

Shape legend: P panels, S superblocks, g group, J = runs of four columns in a superblock's codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sambay.errors import ConfigError

__all__ = [
    "BITS",
    "GROUPS",
    "HEAD_FORMAT",
    "PANEL",
    "QuantFormat",
    "dequantise",
    "pack",
    "packed_nbytes",
    "packed_shape",
    "unpack",
]

PANEL = 16
"""Rows of a panel."""

BITS = (4, 6, 8)
GROUPS = (32, 64, 128)

_SCALE_BYTES = 4 * PANEL
"""Bytes of the scales of a superblock: two groups of 16 rows, two bytes each."""


@dataclass(frozen=True)
class QuantFormat:
    """How the weights of one matrix are stored.

    Args:
        bits: of a weight: 4, 6 or 8.
        group: consecutive columns that share a scale: 32, 64 or 128.

    Raises:
        ConfigError: another value.
    """

    bits: int
    group: int

    def __post_init__(self) -> None:
        for name, value, choices in (("bits", self.bits, BITS), ("group", self.group, GROUPS)):
            if isinstance(value, bool) or value not in choices:
                raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(map(str, choices))}")

    @property
    def lowest(self) -> int:
        """The least code: -8, -32, or -127 (8 bits are symmetric)."""
        return -127 if self.bits == 8 else -(1 << self.bits - 1)

    @property
    def highest(self) -> int:
        """The greatest code: 7, 31 or 127."""
        return (1 << self.bits - 1) - 1

    @property
    def offset(self) -> int:
        """What is added to a code to store it."""
        return 1 << self.bits - 1

    @property
    def block_nbytes(self) -> int:
        """Bytes of a superblock, a multiple of 64."""
        return _SCALE_BYTES + PANEL * 2 * self.group * self.bits // 8

    def groups(self, columns: int) -> int:
        """Groups, hence scales, of a row."""
        return -(-columns // self.group)

    def __str__(self) -> str:
        return f"{self.bits} bits, group {self.group}"


HEAD_FORMAT = QuantFormat(6, 128)
"""What the embedding and the head are stored in where nothing else is said: as good as 8 bits (docs/log.md)."""


def packed_shape(format: QuantFormat, rows: int, columns: int) -> tuple[int, int, int]:
    """Shape (panels, superblocks, nbytes) of the buffer of a matrix.

    Raises:
        ConfigError: a matrix without rows or columns.
    """
    if rows < 1 or columns < 1:
        raise ConfigError(f"a matrix of {rows} x {columns} cannot be quantised: it needs a row and a column")
    return -(-rows // PANEL), -(-columns // (2 * format.group)), format.block_nbytes


def packed_nbytes(format: QuantFormat, rows: int, columns: int) -> int:
    """Bytes of the buffer of a matrix."""
    panels, blocks, nbytes = packed_shape(format, rows, columns)
    return panels * blocks * nbytes


def pack(codes: Tensor, scales: Tensor, format: QuantFormat) -> Tensor:
    """Lay codes and scales out as the kernels read them.

    Args:
        codes: (rows, k) integers from `format.lowest` to `format.highest`.
        scales: (rows, groups of k) float16.
        format: the layout.

    Returns:
        (P, S, nbytes) uint8, contiguous, on the same device.
    """
    rows, columns = codes.shape
    assert scales.dtype is torch.float16, scales.dtype
    assert scales.shape == (rows, format.groups(columns)), scales.shape
    panels, blocks, nbytes = packed_shape(format, rows, columns)
    g = format.group
    u = torch.full((panels * PANEL, blocks * 2 * g), format.offset, dtype=torch.uint8, device=codes.device)
    # 8-bit arithmetic wraps around: adding the offset to an int8 code gives the right byte.
    u[:rows, :columns] = codes.to(torch.int8).view(torch.uint8) + format.offset
    padded = torch.zeros(panels * PANEL, blocks * 2, dtype=torch.float16, device=codes.device)
    padded[:rows, : scales.shape[1]] = scales
    out = torch.empty(panels, blocks, nbytes, dtype=torch.uint8, device=codes.device)
    out[..., :_SCALE_BYTES] = (
        padded.view(panels, PANEL, blocks, 2).permute(0, 2, 3, 1).reshape(panels, blocks, 2 * PANEL).view(torch.uint8)
    )
    u = u.view(panels, PANEL, blocks, 2 * g)
    if format.bits != 8:
        nibbles = u[..., :g] & 15 | u[..., g:] << 4
        u = nibbles if format.bits == 4 else torch.cat((nibbles, _join(u >> 4)), dim=-1)
    quads = u.reshape(panels, PANEL, blocks, -1, 4).permute(0, 2, 3, 1, 4)  # (P, S, J, 16, 4)
    _code_view(out).copy_(quads)
    return out


def unpack(packed: Tensor, format: QuantFormat, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The exact inverse of `pack`.

    Args:
        packed: (P, S, nbytes) uint8.
        format: its layout.
        rows: of the matrix.
        columns: of the matrix.

    Returns:
        Codes (rows, k) int8, and scales (rows, groups of k) float16.
    """
    u, scales = _rows(packed, format, slice(0, rows))
    codes = (u - format.offset).view(torch.int8)  # wraps around likewise
    return codes[:, :columns].contiguous(), scales[:, : format.groups(columns)].contiguous()


def dequantise(
    packed: Tensor, format: QuantFormat, rows: int, columns: int, select: slice | Tensor | None = None
) -> Tensor:
    """The weights that a buffer stands for.

    Args:
        packed: (P, S, nbytes) uint8.
        format: its layout.
        rows: of the matrix.
        columns: of the matrix.
        select: which rows: a slice of step 1, or a tensor of row numbers (int64, 1-d, repetitions allowed);
            only their bytes are read. None takes all.

    Returns:
        (rows or selected rows, k) float32.
    """
    if select is None:
        select = slice(0, rows)
    elif isinstance(select, slice):
        start, stop, step = select.indices(rows)
        assert step == 1, "only consecutive rows"
        select = slice(start, max(start, stop))
    u, scales = _rows(packed, format, select)
    g = format.group
    values: Tensor = (u.float() - format.offset).unflatten(1, (scales.shape[1], g)) * scales.float().unsqueeze(2)
    return values.flatten(1)[:, :columns]


def _join(bits: Tensor) -> Tensor:
    """Two bits of each column in bytes of four: (..., 2 * group) -> (..., group / 2), in the order of the head."""
    first, second = bits.unflatten(-1, (2, -1, 2, 4)).unbind(-4)  # (..., group / 8, 2, 4)
    joined: Tensor = first[..., 0, :] | second[..., 0, :] << 2 | first[..., 1, :] << 4 | second[..., 1, :] << 6
    return joined.flatten(-2)


def _part(joined: Tensor) -> Tensor:
    """The inverse of `_join`."""
    runs = joined.unflatten(-1, (-1, 1, 4))
    groups = [torch.cat((runs >> at & 3, runs >> at + 4 & 3), dim=-2).flatten(-3) for at in (0, 2)]
    return torch.cat(groups, dim=-1)


def _code_view(packed: Tensor) -> Tensor:
    """The codes of a buffer in place: (P, S, J, 16, 4)."""
    view: Tensor = packed[..., _SCALE_BYTES:].unflatten(2, (-1, PANEL, 4))
    return view


def _rows(packed: Tensor, format: QuantFormat, select: slice | Tensor) -> tuple[Tensor, Tensor]:
    """Stored codes (n, padded k) uint8 and scales (n, padded groups) float16 of some rows."""
    assert packed.dtype is torch.uint8, packed.dtype
    assert packed.shape[2:] == (format.block_nbytes,), packed.shape
    scale_view: Tensor = packed[..., :_SCALE_BYTES].view(torch.float16).unflatten(2, (2, PANEL))  # (P, S, 2, 16)
    quad_view = _code_view(packed)
    if isinstance(select, slice):
        first, last = select.start // PANEL, -(-select.stop // PANEL)
        inside = slice(select.start - first * PANEL, select.stop - first * PANEL)
        quads = quad_view[first:last].permute(0, 3, 1, 2, 4).flatten(0, 1)[inside]  # (n, S, J, 4)
        scales = scale_view[first:last].permute(0, 3, 1, 2).flatten(0, 1)[inside]  # (n, S, 2)
    else:
        panel, row = select // PANEL, select % PANEL
        quads, scales = quad_view[panel, :, :, row], scale_view[panel, :, :, row]
    u = quads.flatten(2)  # (n, S, 4 J)
    if format.bits != 8:
        nibbles, rest = u[..., : format.group], u[..., format.group :]
        u = torch.cat((nibbles & 15, nibbles >> 4), dim=2)
        if format.bits == 6:
            u |= _part(rest) << 4
    return u.flatten(1), scales.flatten(1)
