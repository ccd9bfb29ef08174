"""The packed layout against a byte-by-byte reading of its description, at odd sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sambay.errors import ConfigError
from sambay.quant.formats import QuantFormat, dequantise, pack, packed_nbytes, packed_shape, unpack

formats = st.builds(QuantFormat, st.sampled_from([4, 6, 8]), st.sampled_from([32, 64, 128]))
sizes = st.tuples(st.integers(1, 50), st.integers(1, 300))


def random_matrix(format, rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(format.lowest, format.highest + 1, (rows, columns), generator=generator)
    scales = torch.randn(rows, format.groups(columns), generator=generator).half()
    return codes.to(torch.int8), scales


def by_the_book(codes, scales, format):
    """The layout as DESIGN says it, one byte after the other."""
    rows, columns = codes.shape
    g, panels, blocks = format.group, -(-rows // 16), -(-columns // (2 * format.group))
    u = np.full((panels * 16, blocks * 2 * g), format.offset, dtype=np.uint8)
    u[:rows, :columns] = codes.numpy().astype(np.int16) + format.offset
    s = np.zeros((panels * 16, blocks * 2), dtype="<f2")
    s[:rows, : scales.shape[1]] = scales.numpy()
    out = bytearray()
    for panel in range(panels):
        for block in range(blocks):
            mine = u[16 * panel : 16 * panel + 16, 2 * g * block : 2 * g * (block + 1)]
            for half in (0, 1):
                out += s[16 * panel : 16 * panel + 16, 2 * block + half].tobytes()
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
    codes, scales = random_matrix(format, *size)
    packed = pack(codes, scales, format)
    assert packed.shape == packed_shape(format, *size)
    assert packed.is_contiguous()
    assert packed.nbytes == packed_nbytes(format, *size)
    assert packed.nbytes % 64 == 0
    assert packed.numpy().tobytes() == by_the_book(codes, scales, format)


@given(formats, sizes)
def test_round_trip(format, size):
    codes, scales = random_matrix(format, *size)
    found, factors = unpack(pack(codes, scales, format), format, *size)
    assert torch.equal(found, codes)
    assert torch.equal(factors, scales)


@given(formats, sizes, st.data())
def test_dequantise_any_rows(format, size, data):
    rows, columns = size
    codes, scales = random_matrix(format, rows, columns)
    wide = scales.float().repeat_interleave(format.group, dim=1)[:, :columns]
    expected = codes.float() * wide
    packed = pack(codes, scales, format)
    assert torch.equal(dequantise(packed, format, rows, columns), expected)
    start, stop = data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))
    assert torch.equal(dequantise(packed, format, rows, columns, slice(start, stop)), expected[start:stop])
    ids = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=9)), dtype=torch.long)
    assert torch.equal(dequantise(packed, format, rows, columns, ids), expected[ids])


def test_padding_is_zero():
    format = QuantFormat(4, 32)
    codes, scales = random_matrix(format, 3, 40)
    whole = dequantise(pack(codes, scales, format), format, 16, 64)
    assert whole[3:].count_nonzero() == 0
    assert whole[:, 40:].count_nonzero() == 0


@pytest.mark.parametrize(
    ("bits", "group", "words"),
    [
        (3, 32, "bits is 3: it must be one of 4, 6, 8"),
        (4, 16, "group is 16: it must be one of 32, 64, 128"),
        (True, 32, "bits is True"),
        ("4", 32, "bits is '4'"),
    ],
)
def test_wrong_formats(bits, group, words):
    with pytest.raises(ConfigError, match=words):
        QuantFormat(bits, group)


def test_an_empty_matrix():
    with pytest.raises(ConfigError, match="0 x 5 cannot be quantised"):
        packed_shape(QuantFormat(4, 32), 0, 5)
