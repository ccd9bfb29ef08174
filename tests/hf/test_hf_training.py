# ruff: noqa: E402 - after importorskip
import copy

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file
from test_hf_forward import PROMPTS, padded
from transformers import Trainer, TrainingArguments

pytestmark = [
    # Names of transformers 5.23 for what older versions, and peft, still call gradient checkpointing.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]

LEAVES = ["Wqkv", "out_proj", "in_proj", "x_proj", "dt_proj", "fc1", "fc2"]


def batch():
    ids, mask = padded("right")
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask.bool(), ids, -100)}


def lora(hf, **changes):
    config = peft.LoraConfig(r=4, lora_alpha=16, task_type="CAUSAL_LM", target_modules=LEAVES, **changes)
    torch.manual_seed(0)
    return peft.get_peft_model(hf, config)


def train(model, steps, lr=1e-2):
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = model(**batch()).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_lora_trains_every_projection(hf):
    linears = {n for n, m in hf.named_modules() if isinstance(m, torch.nn.Linear)}
    model = lora(hf).train()
    losses = train(model, 15)
    assert losses[-1] < 0.7 * losses[0], losses
    # After the first step lora_B is no longer zero, so that lora_A has a gradient too.
    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n for n in adapters)
    assert {n.split("base_model.model.")[1].split(".lora_")[0] for n in adapters} == linears
    assert {n.rsplit(".", 1)[1] for n in linears} == set(LEAVES)
    for name, parameter in adapters.items():
        assert parameter.grad.abs().max() > 0, name


def test_all_linear_means_all_projections(hf):
    count = sum(isinstance(m, torch.nn.Linear) for m in hf.modules())
    model = peft.get_peft_model(hf, peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules="all-linear"))
    assert sum("lora_A" in n for n, _ in model.named_parameters()) == count


def test_adapters_made_for_the_names_on_disk_load(hf, saved, tmp_path):
    model = lora(hf).train()
    train(model, 2)
    model.eval().save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    renamed = {name.replace(".mixer.", ".attn."): value for name, value in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, path, metadata={"format": "pt"})
    ids = torch.tensor([PROMPTS[0]])
    want = model(input_ids=ids).logits
    assert torch.equal(type(hf).from_pretrained(tmp_path)(ids).logits, want)
    base = type(hf).from_pretrained(saved)
    assert torch.equal(peft.PeftModel.from_pretrained(base, tmp_path)(input_ids=ids).logits, want)


def test_adapters_save_load_generate_and_merge(hf, saved, tmp_path):
    model = lora(hf).train()
    train(model, 3)
    model.eval()
    ids, mask = padded("left")
    with torch.no_grad():
        want = model(input_ids=ids, attention_mask=mask).logits
        exact = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(want, exact, atol=1e-3, rtol=1e-3)
    kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    tokens = model.generate(input_ids=ids, attention_mask=mask, **kwargs)
    assert torch.equal(tokens, model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **kwargs))
    model.save_pretrained(tmp_path / "adapter")

    base = type(hf).from_pretrained(saved)
    assert not torch.allclose(base(ids, attention_mask=mask).logits, want, atol=1e-2)
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter")
    assert torch.equal(again(input_ids=ids, attention_mask=mask).logits, want)
    base.load_adapter(tmp_path / "adapter")  # the way of transformers itself
    assert torch.equal(base(ids, attention_mask=mask).logits, want)
    assert torch.equal(type(hf).from_pretrained(tmp_path / "adapter")(ids, attention_mask=mask).logits, want)

    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(ids, attention_mask=mask).logits, want, atol=1e-3, rtol=1e-3)
    merged.save_pretrained(tmp_path / "merged")
    loaded = type(hf).from_pretrained(tmp_path / "merged")
    assert torch.equal(loaded(ids, attention_mask=mask).logits, merged(ids, attention_mask=mask).logits)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(
    "kwargs", [{}, {"gradient_checkpointing_kwargs": {"use_reentrant": True}}, {"every_n_layers": 2}]
)
def test_gradient_checkpointing_changes_no_gradient(hf, adapted, kwargs):
    model = lora(hf) if adapted else hf
    model.train()
    if adapted:
        train(model, 1)
    calls = []
    hf.model.layers[2].mlp.fc1.register_forward_hook(lambda *_: calls.append(1))

    def gradients():
        model.zero_grad()
        model(**batch()).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    assert len(calls) == 1
    model.gradient_checkpointing_enable(**kwargs)
    assert hf.is_gradient_checkpointing
    recomputed = gradients()
    assert len(calls) == 3
    assert plain.keys() <= recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)
    model.gradient_checkpointing_disable()
    gradients()
    assert len(calls) == 4


def test_prompt_tuning(hf):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    torch.manual_seed(0)
    model = peft.get_peft_model(hf, config).train()
    losses = train(model, 8, lr=0.3)
    assert losses[-1] < losses[0], losses


def test_gradient_checkpointing_leaves_generation_alone(hf):
    before = hf.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=4, do_sample=False)
    # The name of later versions of transformers than Python 3.10 has (5.20).
    getattr(hf, "activation_checkpointing_enable", hf.gradient_checkpointing_enable)()
    assert torch.equal(hf.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=4, do_sample=False), before)


def arguments(directory, **changes):
    values = {"max_steps": 3, "per_device_train_batch_size": 3, "learning_rate": 1e-2, "logging_steps": 1}
    values |= {"report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True, "seed": 0}
    return TrainingArguments(output_dir=str(directory), **values | changes)


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 2}])
def test_the_trainer(hf, tmp_path, changes):
    rows = [{key: value[row] for key, value in batch().items()} for row in range(3)]
    data = rows * changes.get("gradient_accumulation_steps", 1)  # so that each step sees all rows, in any order
    trainer = Trainer(hf, arguments(tmp_path, **changes), train_dataset=data, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    assert before == pytest.approx(hf(**batch()).loss.item(), rel=1e-4)
    assert trainer.model_accepts_loss_kwargs
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert losses[0] == pytest.approx(before, rel=1e-4)
    assert trainer.evaluate()["eval_loss"] < before
    trainer.save_model(str(tmp_path / "out"))
    ids = torch.tensor([PROMPTS[0]])
    again = type(hf).from_pretrained(tmp_path / "out")
    hf.eval()
    assert torch.equal(again(ids).logits, hf(ids).logits)


def test_the_flattening_collator(hf, tmp_path):
    from transformers import DataCollatorWithFlattening

    features = [{"input_ids": p, "labels": p} for p in PROMPTS]
    want = hf(**batch()).loss
    hf.train()
    for seq_idx in (False, True):
        collate = DataCollatorWithFlattening(return_tensors="pt", return_seq_idx=seq_idx)
        flat = collate([dict(f) for f in features])
        torch.testing.assert_close(hf(**flat).loss, want, atol=1e-5, rtol=1e-5)
