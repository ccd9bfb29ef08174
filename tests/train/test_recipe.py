import dataclasses
import json
from pathlib import Path

import pytest
import torch

from sambay.config import preset
from sambay.errors import ConfigError
from sambay.model import SambaY
from sambay.train.optimizer import build_optimizer, parameter_groups
from sambay.train.recipe import OptimizerRecipe, Recipe, ScheduleRecipe

MODEL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 16,
}
RECIPES = Path(__file__).parents[2] / "recipes"


def test_defaults_and_types():
    recipe = Recipe.from_dict({"model": MODEL, "optimizer": {"lr": 1, "betas": [0.8, 0.9]}})
    assert recipe.optimizer == OptimizerRecipe(lr=1.0, betas=(0.8, 0.9))
    assert type(recipe.optimizer.lr) is float
    assert recipe.model.vocab_size == recipe.data.vocab_size
    assert recipe.model.torch_dtype == "float32"
    assert recipe.schedule == ScheduleRecipe()
    assert recipe.to_dict()["optimizer"]["betas"] == (0.8, 0.9)


def test_what_is_kept_beside_a_run_is_read_back():
    recipe = Recipe.from_dict({"model": MODEL, "optimizer": {"betas": [0.8, 0.9]}, "run": {"workers": 3}})
    kept = json.loads(json.dumps(recipe.to_dict()))
    assert Recipe.from_dict(kept) == Recipe.of_run(kept) == recipe
    # A run of the first version stored what follows from the tokenizer; a younger key is at its default.
    older = {**kept, "model": {**kept["model"], "vocab_size": 1024, "bos_token_id": None, "torch_dtype": "float32"}}
    del older["run"]["threads"], older["model"]["logits_multiplier"]
    assert Recipe.of_run(older) == recipe
    for nonsense in ([], 5, {}, {"model": 5}):
        with pytest.raises(ConfigError, match="it is no recipe"):
            Recipe.of_run(nonsense)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_recipes_that_we_ship(path):
    assert Recipe.load(path).schedule.steps > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"modle": {}}, r"unknown table \[modle\]: it knows model, data, optimizer, schedule, run"),
        ({"data": {"sed": 1}}, r"\[data\] has an unknown key 'sed': it knows seed, "),
        ({"model": {**MODEL, "hidden": 3}}, r"\[model\] has an unknown key 'hidden': it knows .*hidden_size"),
        (
            {"model": {**MODEL, "vocab_size": 500}},
            r"\[model\] has vocab_size = 500, but vocab_size is that of the tokenizer: set data.vocab_size instead",
        ),
        ({"model": {**MODEL, "bos_token_id": 1}}, "bos_token_id comes from the tokenizer: leave it out"),
        ({"model": {**MODEL, "torch_dtype": "bfloat16"}}, "torch_dtype is float32 in training: set run.precision"),
        ({"data": 5}, r"\[data\] must be a table"),
        ({"model": 5}, r"\[model\] must be a table"),
        ({"model": {}}, "the configuration lacks hidden_size"),
        ({"model": {**MODEL, "num_hidden_layers": 6}}, "num_hidden_layers is 6"),
        ({"model": {**MODEL, "hidden_size": "big"}}, "hidden_size"),
        ({"data": {"seed": "one"}}, "data.seed is 'one': it must be of the type of its default, 0"),
        ({"data": {"seed": 1.0}}, "data.seed is 1.0"),
        ({"data": {"seed": True}}, "data.seed is True"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr is 'fast'"),
        ({"optimizer": {"lr": True}}, "optimizer.lr is True"),
        ({"run": {"precision": "float16"}}, "run.precision is 'float16': it must be 'float32' or 'bfloat16'"),
        ({"run": {"precision": 1}}, "run.precision is 1"),
        ({"data": {"families": {"algebra": 1}}}, "data.families .*'algebra'.*arithmetic"),
        ({"data": {"families": {"arithmetic": -1}}}, "data.families.arithmetic is -1"),
        ({"data": {"families": {"arithmetic": "much"}}}, "data.families.arithmetic is 'much'"),
        ({"data": {"families": {"arithmetic": 0}}}, "at least one"),
        ({"data": {"families": [1]}}, "data.families"),
        *[({"data": {name: v}}, f"data.{name} is {v}") for name in ("smalltalk", "second_turns") for v in (-0.1, 1.0)],
        ({"data": {"longest": 1}}, "data.longest is 1: it must be 2 or more"),
        ({"data": {"vocab_documents": 0}}, "data.vocab_documents is 0: it must be positive"),
        *[
            ({"optimizer": {name: v}}, f"optimizer.{name} is {v}: it must be positive")
            for name in ("lr", "clip", "eps")
            for v in (0.0, -1.0, float("nan"), float("inf"))
        ],
        ({"optimizer": {"base_width": 0}}, "optimizer.base_width is 0"),
        ({"optimizer": {"weight_decay": -0.1}}, "optimizer.weight_decay is -0.1: it must be 0 or more"),
        *[
            ({"optimizer": {"betas": v}}, "optimizer.betas is ")
            for v in ([0.9], [0.9, 1.0], [-0.1, 0.9], ["a", "b"], 0.9, [0.9, 0.9, 0.9])
        ],
        ({"schedule": {"steps": 0}}, "schedule.steps is 0"),
        (
            {"schedule": {"steps": 10, "warmup": 11, "decay": 0}},
            "schedule.warmup is 11: it must be from 0 to steps, 10",
        ),
        ({"schedule": {"steps": 10, "warmup": 1, "decay": 11}}, "schedule.decay is 11"),
        ({"schedule": {"steps": 10, "warmup": -1, "decay": 0}}, "schedule.warmup is -1"),
        *[
            ({"run": {name: 0}}, f"run.{name} is 0: it must be positive")
            for name in ("tokens_per_step", "log_every", "save_every", "eval_every", "eval_documents", "workers")
        ],
        ({"run": {"threads": -1}}, "run.threads is -1"),
    ],
)
def test_errors_are_one_clear_sentence(content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe.from_dict({"model": MODEL} | content)
    assert "\n" not in str(caught.value)


def test_files(tmp_path):
    path = tmp_path / "recipe.toml"
    with pytest.raises(ConfigError, match=r"recipe\.toml does not exist: give a recipe file"):
        Recipe.load(path)
    for content in (b"[model", b"\xff\xfe", b"x = \n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"recipe\.toml cannot be read as TOML"):
            Recipe.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.load(tmp_path)


# The learning rate over time


@pytest.mark.parametrize(
    ("steps", "warmup", "decay"), [(100, 10, 30), (100, 0, 0), (10, 10, 0), (10, 0, 10), (10, 8, 8), (1, 1, 1)]
)
def test_schedule(steps, warmup, decay):
    schedule = ScheduleRecipe(steps, warmup, decay)
    factors = [schedule.factor(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    for step, factor in enumerate(factors):
        if step < warmup and step < steps - decay:
            assert factor == pytest.approx((step + 1) / warmup)
        if warmup <= step <= steps - decay:
            assert factor == 1
        if step >= warmup and step >= steps - decay and decay:
            assert factor == pytest.approx((steps - step) / decay)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert schedule.factor(steps) == (0 if decay else 0.0)
    assert schedule.factor(steps + 5) == 0


# The groups of muP++

VECTORS = ("norm", "bias", "conv1d", "A_log", ".D", "embedding", "lm_head", "subln", "lambda")


@pytest.mark.parametrize(
    "config",
    [
        preset("tiny"),
        preset("tiny-plain"),
        dataclasses.replace(preset("tiny"), lm_head_bias=True, mlp_bias=True, mamba_proj_bias=True),
    ],
)
def test_parameter_groups(config):
    model = SambaY.random(config)
    recipe = OptimizerRecipe(lr=0.01, base_width=16, weight_decay=0.3)
    matrices, rest = parameter_groups(model, recipe)
    named = dict(model.named_parameters())
    assert sorted([*matrices["names"], *rest["names"]]) == sorted(named)
    for group in (matrices, rest):
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert named[name] is parameter
            assert (group is rest) is any(part in name for part in VECTORS), name
            assert group is rest or parameter.ndim == 2
    assert matrices["lr"] == matrices["lr_peak"] == pytest.approx(0.01 * 16 / 64)
    assert rest["lr"] == rest["lr_peak"] == 0.01
    assert (matrices["weight_decay"], rest["weight_decay"]) == (0.3, 0.0)


def test_parameters_that_are_frozen_are_left_out():
    model = SambaY.random(preset("tiny"))
    model.embedding.weight.requires_grad_(False)
    groups = parameter_groups(model, OptimizerRecipe())
    assert "embedding.weight" not in [name for group in groups for name in group["names"]]


def test_the_optimizer_follows_adamw():
    """One step from known gradients, by the formula."""
    model = SambaY.random(preset("tiny"), seed=1)
    recipe = OptimizerRecipe(lr=0.01, base_width=64, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.5)
    optimizer = build_optimizer(model, recipe)
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    decayed = set(parameter_groups(model, recipe)[0]["names"])
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.double()
        expected = before[name] * (1 - 0.01 * 0.5 * (name in decayed)) - 0.01 * gradient / (gradient.abs() + 1e-6)
        torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=1e-5)
