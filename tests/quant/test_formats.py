"""The packed layout against a byte-by-byte reading of its description, at odd sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.errors import ConfigError
from sambay.quant.formats import QuantFormat, Rounded, dequantise, pack, packed_nbytes, packed_shape, unpack

formats = st.builds(QuantFormat, st.sampled_from([4, 6, 8]), st.sampled_from([32, 64, 128]))
sizes = st.tuples(st.integers(1, 50), st.integers(1, 300))


def random_matrix(format, rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(format.lowest, format.highest + 1, (rows, columns), generator=generator)
    scales = torch.randn(rows, format.scales(columns), generator=generator).half()
    factors = torch.randint(-15, 16, (rows, format.groups(columns)), generator=generator).to(torch.int8)
    return Rounded(codes.to(torch.int8), scales, format, factors if format.nested else None)


def stored_header(scales, factors):
    """The first 128 bytes of a superblock with nested scales: (16,) and (16, 8) numbers."""
    signs = [sum((factor < 0) << q for q, factor in enumerate(row)) for row in factors.tolist()]
    sizes = [abs(int(row[q])) | abs(int(row[q + 4])) << 4 for q in range(4) for row in factors]
    return scales.tobytes() + bytes(signs) + bytes(16) + bytes(sizes)


def by_the_book(matrix):
    """The layout as its description says it, one byte after the other."""
    format, (rows, columns) = matrix.format, matrix.codes.shape
    width = 256 if format.nested else 2 * format.group
    g, panels, blocks = width // 2, -(-rows // 16), -(-columns // width)
    u = np.full((panels * 16, blocks * width), format.offset, dtype=np.uint8)
    u[:rows, :columns] = matrix.codes.numpy().astype(np.int16) + format.offset
    s = np.zeros((panels * 16, blocks * (1 if format.nested else 2)), dtype="<f2")
    s[:rows, : matrix.scales.shape[1]] = matrix.scales.numpy()
    f = np.zeros((panels * 16, blocks * 8), dtype=np.int64)
    if format.nested:
        f[:rows, : matrix.factors.shape[1]] = matrix.factors.numpy()
    out = bytearray()
    for panel in range(panels):
        own = slice(16 * panel, 16 * panel + 16)
        for block in range(blocks):
            mine = u[own, width * block : width * (block + 1)]
            if format.nested:
                out += stored_header(s[own, block], f[own, 8 * block : 8 * block + 8])
            else:
                out += b"".join(s[own, 2 * block + half].tobytes() for half in (0, 1))
            for j in range(g // 2 if format.bits == 8 else g // 4):
                for r in range(16):
                    for i in range(4):
                        low = int(mine[r, 4 * j + i])
                        out.append(low if format.bits == 8 else low & 15 | (int(mine[r, g + 4 * j + i]) & 15) << 4)
            for j in range(g // 8 if format.bits == 6 else 0):
                for r in range(16):
                    for i in range(4):
                        places = (8 * j + i, g + 8 * j + i, 8 * j + 4 + i, g + 8 * j + 4 + i)
                        out.append(sum((int(mine[r, place]) >> 4) << 2 * at for at, place in enumerate(places)))
    return bytes(out)


@given(formats, sizes)
@settings(max_examples=25)
def test_every_byte(format, size):
    matrix = random_matrix(format, *size)
    packed = pack(matrix)
    assert packed.shape == packed_shape(format, *size)
    assert packed.is_contiguous()
    assert packed.nbytes == packed_nbytes(format, *size)
    assert packed.nbytes % 64 == 0
    assert packed.numpy().tobytes() == by_the_book(matrix)


@given(formats, sizes)
def test_round_trip(format, size):
    matrix = random_matrix(format, *size)
    found = unpack(pack(matrix), format, *size)
    assert torch.equal(found.codes, matrix.codes)
    assert torch.equal(found.scales, matrix.scales)
    assert found.factors is matrix.factors is None or torch.equal(found.factors, matrix.factors)
    assert torch.equal(found.weights(), matrix.weights())


@given(formats, sizes, st.data())
def test_dequantise_any_rows(format, size, data):
    rows, columns = size
    matrix = random_matrix(format, rows, columns)
    each = torch.arange(columns)
    steps = matrix.scales[:, each // (256 if format.nested else format.group)].float()
    if format.nested:
        steps = steps * matrix.factors[:, each // 32]
    expected = matrix.codes * steps
    packed = pack(matrix)
    assert torch.equal(dequantise(packed, format, rows, columns), expected)
    start, stop = data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))
    assert torch.equal(dequantise(packed, format, rows, columns, slice(start, stop)), expected[start:stop])
    ids = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=9)), dtype=torch.long)
    assert torch.equal(dequantise(packed, format, rows, columns, ids), expected[ids])


@pytest.mark.parametrize("format", [QuantFormat(4, 32), QuantFormat(4, 128)], ids=str)
def test_padding_is_zero(format):
    whole = dequantise(pack(random_matrix(format, 3, 40)), format, 16, 256)
    assert whole[3:].count_nonzero() == 0
    assert whole[:, 40:].count_nonzero() == 0


@pytest.mark.parametrize(
    ("bits", "group", "words"),
    [
        (3, 32, "bits is 3: it must be one of 4, 6, 8"),
        (4, 16, "group is 16: it must be one of 32, 64, 128"),
        (True, 32, "bits is True"),
        ("4", 32, "bits is '4'"),
        (4.0, 32, "bits is 4.0"),
    ],
)
def test_wrong_formats(bits, group, words):
    with pytest.raises(ConfigError, match=words):
        QuantFormat(bits, group)


def test_an_empty_matrix():
    with pytest.raises(ConfigError, match="0 x 5 cannot be quantised"):
        packed_shape(QuantFormat(4, 32), 0, 5)


def test_bits_of_a_weight():
    """Scales included, without padding."""
    sizes = {(4, 32): 4.25, (4, 64): 4.25, (4, 128): 4.125, (6, 128): 6.125, (8, 32): 8.5}
    for (bits, group), expected in sizes.items():
        assert packed_nbytes(QuantFormat(bits, group), 32, 2560) * 8 / (32 * 2560) == expected
