"""The deterministic mode: no bit of a logit depends on what is computed beside it, nor on how its text was cut."""

import random

import pytest
import torch

from sambay import hub
from sambay.engine import LLM, SamplingParams
from sambay.engine.invariant import is_invariant, require_invariant
from sambay.errors import BackendError, ConfigError
from sambay.model import SambaY
from sambay.ops import backend, native
from sambay.quant.convert import quantize

needs_kernels = pytest.mark.skipif(not native.usable(), reason="needs the compiled kernels")


@pytest.fixture(scope="module", params=["plain", "quantised"])
def bundled(request, tmp_path_factory):
    plain = SambaY.from_pretrained(hub.bundled_model())
    if request.param == "plain":
        return plain
    directory = tmp_path_factory.mktemp("invariant") / "packed"
    quantize(plain, directory)
    return SambaY.from_pretrained(directory)


def run(model, texts, cuts, together):
    """The logits after each text, and its states, computed in pieces of random lengths, some texts at once."""
    dice = random.Random(cuts + together)
    pool = model.new_state(len(texts))
    slots, done, logits = [pool.open() for _ in texts], [0] * len(texts), [None] * len(texts)
    with torch.inference_mode():
        while left := [i for i, text in enumerate(texts) if done[i] < len(text)]:
            chosen = dice.sample(left, min(together, len(left)))
            sizes = [min(dice.randint(1, cuts), len(texts[i]) - done[i]) for i in chosen]
            ids = [token for i, size in zip(chosen, sizes, strict=True) for token in texts[i][done[i] : done[i] + size]]
            last = [int(done[i] + size == len(texts[i])) for i, size in zip(chosen, sizes, strict=True)]
            batch = pool.batch(torch.tensor(ids), tuple(sizes), tuple(slots[i] for i in chosen), tuple(last))
            rows = iter(model.run(batch, pool))
            pool.advance(batch)
            for i, size, ends in zip(chosen, sizes, last, strict=True):
                done[i] += size
                if ends:
                    logits[i] = next(rows)
    return logits, [pool.snapshot(slot) for slot in slots]


@needs_kernels
def test_no_bit_depends_on_company_and_cuts(bundled):
    dice = random.Random(0)
    texts = [[dice.randrange(1024) for _ in range(length)] for length in (1, 5, 40, 64, 65, 130, 200)]
    expected, states = [], []
    for text in texts:
        [logits], [state] = run(bundled, [text], 1000, 1)
        expected.append(logits)
        states.append(state)
    for cuts, together in ((1, 7), (3, 2), (20, 5), (70, 3), (1000, 7)):
        found, kept = run(bundled, texts, cuts, together)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        for one, other in zip(kept, states, strict=True):
            assert all(
                torch.equal(a, b)
                for mine, theirs in zip(one.fixed, other.fixed, strict=True)
                for a, b in zip(mine, theirs, strict=True)
                if a.dim() == 2  # a ring may hold what has long left the window
            )


@needs_kernels
def test_models_that_have_no_such_arithmetic(model):
    half = SambaY.random(model.config, dtype=torch.bfloat16)
    assert is_invariant(model)
    assert not is_invariant(half)
    with pytest.raises(BackendError, match="this is bfloat16 on cpu, with kernels: use dtype='float32'"):
        require_invariant(half)


@needs_kernels
def test_the_mode_is_a_demand(checkpoint):
    LLM(checkpoint, device="cpu", deterministic=True)
    with pytest.raises(BackendError, match="this is float32 on cpu, without kernels"), backend.using("reference"):
        LLM(checkpoint, device="cpu", deterministic=True)
    with pytest.raises(ConfigError, match="deterministic is 3: it must be True or False"):
        LLM(checkpoint, deterministic=3)


@needs_kernels
def test_the_bundled_model_in_company():
    """What it says to one is what it says to sixteen, drawn or not, and in a second turn."""
    llm = LLM(device="cpu")
    asked = [[{"role": "user", "content": f"What is {i} + {2 * i}/3?"}] for i in range(11, 19)]
    params = [SamplingParams(temperature=0.9 * (i % 2), seed=i, max_tokens=24) for i in range(8)]
    together = llm.chat(asked, params)
    for messages, one, output in zip(asked[:4], params, together, strict=False):
        alone = LLM(device="cpu", max_num_batched_tokens=7, enable_prefix_caching=False).chat(messages, one)[0]
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids
