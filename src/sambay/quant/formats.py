"""The packed layout of a quantised matrix: exactly the bytes that the kernels read, memory-mapped, never repacked.

A matrix W (rows, k), of the product y = x W', is cut into panels of 16 rows and superblocks of 2 * group
columns; rows are padded to 16 and columns to whole superblocks by weights of value 0. Each weight is `code * scale`,
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

Four bits in groups of 32 are stored with *nested* scales: a weight is `code * factor * scale`, with a float16 scale for
256 columns of a row and a whole number from -15 to 15, the factor, for each group. A superblock has 256 columns:

    bytes 0..31    the scales, r = 0..15, little-endian float16
    bytes 32..47   signs: bit q of byte r is 1 where the factor of row r and group q is negative
    bytes 48..63   0
    bytes 64..127  sizes of the factors: for q in 0..3, for r: |f[r, q]| | |f[r, q+4]| << 4
    the rest       codes as above, of two "groups" of 128 columns: u[r, 4j+i] | u[r, 128+4j+i] << 4 for j in 0..31

`code * factor` fits into a byte, so that a product can add up 128 columns in integers before it scales the sum.

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
    "Rounded",
    "dequantise",
    "group_scales",
    "pack",
    "packed_nbytes",
    "packed_shape",
    "unpack",
]

PANEL = 16
"""Rows of a panel."""

BITS = (4, 6, 8)
GROUPS = (32, 64, 128)

FACTOR = 15
"""The largest factor of a nested scale: times a code of four bits it is a signed byte."""

_SCALE_BYTES = 4 * PANEL
"""Bytes of the scales of a superblock: two groups of 16 rows, two bytes each."""

_NESTED_GROUPS = 8
"""Groups of a superblock with nested scales."""


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
            if type(value) is not int or value not in choices:  # neither True nor 4.0, which no size can be
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
    def nested(self) -> bool:
        """Whether each group has a factor, and only several groups a scale."""
        return self.bits == 4 and self.group == 32

    @property
    def columns(self) -> int:
        """Columns of a superblock."""
        return _NESTED_GROUPS * self.group if self.nested else 2 * self.group

    @property
    def header_nbytes(self) -> int:
        """Bytes of a superblock before its codes."""
        return 2 * _SCALE_BYTES if self.nested else _SCALE_BYTES

    @property
    def block_nbytes(self) -> int:
        """Bytes of a superblock, a multiple of 64."""
        return self.header_nbytes + PANEL * self.columns * self.bits // 8

    def groups(self, columns: int) -> int:
        """Groups of a row: its scales, or its factors where scales are nested."""
        return -(-columns // self.group)

    def scales(self, columns: int) -> int:
        """Float16 scales of a row."""
        return -(-columns // (self.columns if self.nested else self.group))

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
    return -(-rows // PANEL), -(-columns // format.columns), format.block_nbytes


def packed_nbytes(format: QuantFormat, rows: int, columns: int) -> int:
    """Bytes of the buffer of a matrix."""
    panels, blocks, nbytes = packed_shape(format, rows, columns)
    return panels * blocks * nbytes


@dataclass(frozen=True)
class Rounded:
    """A matrix as codes and scales.

    Attributes:
        codes: (rows, k) int8, from `format.lowest` to `format.highest`.
        scales: (rows, scales of k) float16.
        format: that they are made for.
        factors: (rows, groups of k) int8 from -15 to 15 where scales are nested, else None.
    """

    codes: Tensor
    scales: Tensor
    format: QuantFormat
    factors: Tensor | None = None

    def __post_init__(self) -> None:
        rows, columns = self.codes.shape
        assert self.scales.dtype is torch.float16, self.scales.dtype
        assert self.scales.shape == (rows, self.format.scales(columns)), self.scales.shape
        assert self.format.nested == (self.factors is not None)
        assert self.factors is None or self.factors.shape == (rows, self.format.groups(columns)), self.factors.shape

    def weights(self) -> Tensor:
        """The weights that they stand for: (rows, k) float32."""
        steps = group_scales(self.scales, self.factors).repeat_interleave(self.format.group, dim=1)
        return self.codes.float() * steps[:, : self.codes.shape[1]]


def pack(matrix: Rounded) -> Tensor:
    """Lay codes and scales out as the kernels read them: (P, S, nbytes) uint8, contiguous, on the same device."""
    codes, scales, format = matrix.codes, matrix.scales, matrix.format
    rows, columns = codes.shape
    panels, blocks, nbytes = packed_shape(format, rows, columns)
    half = format.columns // 2
    u = torch.full((panels * PANEL, blocks * 2 * half), format.offset, dtype=torch.uint8, device=codes.device)
    # 8-bit arithmetic wraps around: adding the offset to an int8 code gives the right byte.
    u[:rows, :columns] = codes.to(torch.int8).view(torch.uint8) + format.offset
    out = torch.zeros(panels, blocks, nbytes, dtype=torch.uint8, device=codes.device)
    of_block = 1 if format.nested else 2
    padded = torch.zeros(panels * PANEL, blocks * of_block, dtype=torch.float16, device=codes.device)
    padded[:rows, : scales.shape[1]] = scales
    by_block = padded.view(panels, PANEL, blocks, of_block).permute(0, 2, 3, 1)  # (P, S, 1 or 2, 16)
    _scale_view(out, format).copy_(by_block)
    if matrix.factors is not None:
        out[..., 32:48], out[..., 64:128] = _factor_bytes(matrix.factors, panels, blocks)
    u = u.view(panels, PANEL, blocks, 2 * half)
    if format.bits != 8:
        nibbles = u[..., :half] & 15 | u[..., half:] << 4
        u = nibbles if format.bits == 4 else torch.cat((nibbles, _join(u >> 4)), dim=-1)
    quads = u.reshape(panels, PANEL, blocks, -1, 4).permute(0, 2, 3, 1, 4)  # (P, S, J, 16, 4)
    _code_view(out, format).copy_(quads)
    return out


def unpack(packed: Tensor, format: QuantFormat, rows: int, columns: int) -> Rounded:
    """The exact inverse of `pack`.

    Args:
        packed: (P, S, nbytes) uint8.
        format: its layout.
        rows: of the matrix.
        columns: of the matrix.
    """
    u, scales, factors = _rows(packed, format, slice(0, rows))
    codes = (u - format.offset).view(torch.int8)  # wraps around likewise
    if factors is not None:
        factors = factors[:, : format.groups(columns)].contiguous()
    scales = scales[:, : format.scales(columns)].contiguous()
    return Rounded(codes[:, :columns].contiguous(), scales, format, factors)


def group_scales(scales: Tensor, factors: Tensor | None) -> Tensor:
    """What the codes of each group are multiplied by, exactly: (rows, groups) float32.

    Args:
        scales: (rows, scales) float16.
        factors: (rows, groups) int8 where scales are nested.
    """
    if factors is None:
        return scales.float()
    wide = scales.float().repeat_interleave(_NESTED_GROUPS, dim=1)[:, : factors.shape[1]]
    return wide * factors


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
    u, scales, factors = _rows(packed, format, select)
    steps = group_scales(scales, factors).unsqueeze(2)
    values: Tensor = (u.float() - format.offset).unflatten(1, (-1, format.group)) * steps
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


def _factor_bytes(factors: Tensor, panels: int, blocks: int) -> tuple[Tensor, Tensor]:
    """Factors (rows, groups) as stored: signs (P, S, 16) and sizes (P, S, 64), both uint8."""
    padded = torch.zeros(panels * PANEL, blocks * _NESTED_GROUPS, dtype=torch.int8, device=factors.device)
    padded[: factors.shape[0], : factors.shape[1]] = factors
    each = padded.view(panels, PANEL, blocks, _NESTED_GROUPS).permute(0, 2, 3, 1)  # (P, S, 8, 16)
    places = torch.arange(_NESTED_GROUPS, device=factors.device).unsqueeze(1)
    signs = ((each < 0).to(torch.uint8) << places).sum(2).to(torch.uint8)
    sizes = each.abs().to(torch.uint8)
    return signs, (sizes[:, :, :4] | sizes[:, :, 4:] << 4).flatten(2)


def _factors_of(header: Tensor) -> Tensor:
    """Factors (..., 8) int8 from what a header has for a row: (..., 5) uint8, the signs and four bytes of sizes."""
    signs, sizes = header[..., :1], header[..., 1:]
    places = torch.arange(_NESTED_GROUPS, device=header.device)
    size = torch.cat((sizes & 15, sizes >> 4), dim=-1).to(torch.int8)
    return torch.where((signs >> places & 1).bool(), -size, size)


def _scale_view(packed: Tensor, format: QuantFormat) -> Tensor:
    """The scales of a buffer in place: (P, S, 1 or 2, 16) float16."""
    of_block = 1 if format.nested else 2
    view: Tensor = packed[..., : 2 * PANEL * of_block].view(torch.float16).unflatten(2, (of_block, PANEL))
    return view


def _code_view(packed: Tensor, format: QuantFormat) -> Tensor:
    """The codes of a buffer in place: (P, S, J, 16, 4)."""
    view: Tensor = packed[..., format.header_nbytes :].unflatten(2, (-1, PANEL, 4))
    return view


def _rows(packed: Tensor, format: QuantFormat, select: slice | Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of some rows, padding included: stored codes (n, k) uint8, scales (n, scales) float16, factors (n, groups)."""
    assert packed.dtype is torch.uint8, packed.dtype
    assert packed.shape[2:] == (format.block_nbytes,), packed.shape
    scale_view, quad_view = _scale_view(packed, format), _code_view(packed, format)
    factor_view = None
    if format.nested:
        factor_view = torch.cat((packed[..., 32:48].unsqueeze(2), packed[..., 64:128].unflatten(2, (4, PANEL))), dim=2)
    if isinstance(select, slice):
        first, last = select.start // PANEL, -(-select.stop // PANEL)
        inside = slice(select.start - first * PANEL, select.stop - first * PANEL)

        def rows_of(view: Tensor) -> Tensor:  # (P, S, *, 16) -> (n, S, *)
            return view[first:last].permute(0, 3, 1, 2).flatten(0, 1)[inside]

        quads = quad_view[first:last].permute(0, 3, 1, 2, 4).flatten(0, 1)[inside]  # (n, S, J, 4)
    else:
        panel, row = select // PANEL, select % PANEL

        def rows_of(view: Tensor) -> Tensor:
            return view[panel, :, :, row]

        quads = quad_view[panel, :, :, row]
    scales = rows_of(scale_view).flatten(1)
    factors = None if factor_view is None else _factors_of(rows_of(factor_view)).flatten(1)
    u = quads.flatten(2)  # (n, S, 4 J)
    if format.bits != 8:
        half = format.columns // 2
        nibbles, rest = u[..., :half], u[..., half:]
        u = torch.cat((nibbles & 15, nibbles >> 4), dim=2)
        if format.bits == 6:
            u |= _part(rest) << 4
    return u.flatten(1), scales, factors
