"""Packed weights copied into large pages: the same model, at other addresses."""

import mmap

import pytest
import torch

from sambay.engine import LLM, SamplingParams
from sambay.layers import Linear
from sambay.model import SambaY
from sambay.ops import native
from sambay.quant import resident
from sambay.quant.resident import make_resident

large_pages = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without large pages")


def packed(model):
    return {name: buffer for name, buffer in model.named_buffers() if name.endswith("packed")}


@large_pages
@pytest.mark.parametrize("variant", ["differential", "plain, untied"])
def test_a_copy_is_the_same_model(directories, variant):
    model, other = (SambaY.from_pretrained(directories(variant)) for _ in range(2))
    ids, seen = torch.arange(40) % 71, []
    with torch.no_grad():
        before = model(ids)
        assert make_resident(model, True, lambda *done: seen.append(done))
        assert torch.equal(model(ids), before)
    plain = [module.weight for module in model.modules() if isinstance(module, Linear)]
    assert len(seen) == len(packed(model)) + len(plain) > 20
    assert len({one.untyped_storage().data_ptr() for one in plain}) == 1
    assert seen[-1][0] == seen[-1][1]
    starts = set()
    for (name, new), old in zip(packed(model).items(), packed(other).values(), strict=True):
        assert torch.equal(new, old), name
        assert new.data_ptr() % 64 == 0
        starts.add(new.untyped_storage().data_ptr())
    assert len(starts) == 1


@large_pages
def test_when_a_copy_is_made(directories, monkeypatch):
    model = SambaY.from_pretrained(directories())
    total = sum(x.nbytes for x in packed(model).values())
    assert not make_resident(model)  # too small to matter
    assert not make_resident(model, False)
    monkeypatch.setattr(resident, "_WORTH_IT", total // 2)
    monkeypatch.setattr(resident, "free_memory", lambda: 2 * total)  # plain matrices, too, are copied
    assert not make_resident(model)  # too little memory
    monkeypatch.setattr(resident, "free_memory", lambda: None)
    assert not make_resident(model)  # nobody knows
    monkeypatch.setattr(resident, "free_memory", lambda: 4 * total)
    assert make_resident(model) == native.available()
    assert not make_resident(torch.nn.Linear(3, 3), True)  # nothing is packed


def test_a_system_without_large_pages(directories, monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    model = SambaY.from_pretrained(directories())
    before = [x.data_ptr() for x in packed(model).values()]
    assert not make_resident(model, True)
    assert [x.data_ptr() for x in packed(model).values()] == before


@large_pages
def test_an_engine_with_and_without(directories):
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    found = [LLM(directories(), mmap=mapped).generate([1, 2, 3], params)[0] for mapped in (True, False, None)]
    assert len({tuple(out.outputs[0].token_ids) for out in found}) == 1


@pytest.mark.skipif(not native.usable(), reason="of the compiled kernels")
def test_torch_rests_beside_the_kernels_of_a_quantised_model_only(directories):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        LLM()
        assert torch.get_num_threads() == 2
        LLM(directories())
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
