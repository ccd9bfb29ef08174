"""The model and the engine on a CUDA device against the same on the CPU."""

import pytest
import torch

from sambay import LLM, PRESETS, SambaY, SamplingParams, StatePool

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

LENGTHS = (1, 5, 40, 33, 17)


def models(dtype, preset="tiny"):
    cpu = SambaY.random(PRESETS[preset], seed=3).eval()
    gpu = SambaY(PRESETS[preset]).eval()
    gpu.load_state_dict(cpu.state_dict())
    return cpu, gpu.to("cuda", dtype)


def relative(found, expected):
    return float((found.float().cpu() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("preset", ["tiny", "tiny-plain"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 6e-2), (torch.float16, 2e-2)])
@torch.inference_mode()
def test_packed_documents_and_chunks(preset, dtype, bound):
    cpu, gpu = models(dtype, preset)
    for model in (cpu, gpu):
        if model.lm_head.weight is not None:  # an untied head begins at zero
            model.lm_head.weight.copy_(
                torch.linspace(-1, 1, model.lm_head.weight.numel()).view_as(model.lm_head.weight)
            )
    ids = torch.randint(0, 512, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    offsets = [sum(LENGTHS[:i]) for i in range(len(LENGTHS) + 1)]
    expected = cpu(ids, offsets=offsets)
    assert relative(gpu(ids.cuda(), offsets=offsets), expected) < bound
    pool = StatePool(gpu.config, 2, dtype=dtype, device="cuda")
    slots = [pool.open(), pool.open()][1:]
    parts = [gpu(part[None].cuda(), state=pool, slots=slots)[0] for part in ids[:40].split([7, 1, 20, 12])]
    assert relative(torch.cat(parts), cpu(ids[None, :40])[0]) < bound


def test_gradients():
    cpu, gpu = models(torch.float32)
    ids = torch.randint(0, 512, (2, 30), generator=torch.Generator().manual_seed(2))
    for model in (cpu, gpu):
        model(ids.to(model.device)).float().square().mean().backward()
    for (name, mine), theirs in zip(gpu.named_parameters(), cpu.parameters(), strict=True):
        assert relative(mine.grad, theirs.grad) < 1e-3, name


def test_the_engine_gives_the_tokens_of_the_cpu():
    prompts = [[5, 6, 7] * n for n in range(1, 8)]
    params = SamplingParams(temperature=0, max_tokens=20)
    from sambay.hub import bundled_model

    texts = []
    for device in ("cpu", "cuda"):
        outputs = LLM(bundled_model(), device=device, max_num_seqs=3).generate(prompts, params)
        texts.append([output.outputs[0].token_ids for output in outputs])
    assert texts[0] == texts[1]
