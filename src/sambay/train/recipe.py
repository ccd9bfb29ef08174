"""A training recipe: everything that decides a run, in one TOML file.

Unknown keys are errors, so that a misspelt setting is never silently left at its default.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sambay.config import SambaYConfig
from sambay.data.problems import FAMILIES
from sambay.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DataRecipe", "OptimizerRecipe", "Recipe", "RunRecipe", "ScheduleRecipe"]

_DERIVED = {
    "vocab_size": "is that of the tokenizer: set data.vocab_size instead",
    "bos_token_id": "comes from the tokenizer: leave it out",
    "eos_token_id": "comes from the tokenizer: leave it out",
    "pad_token_id": "comes from the tokenizer: leave it out",
    "torch_dtype": "is float32 in training: set run.precision instead",
}
"""Fields of the model's configuration that no recipe decides, and what to do about them."""


@dataclass(frozen=True)
class DataRecipe:
    """Where documents come from.

    Attributes:
        seed: of the problem generator.
        families: share of each family; empty for the generator's own.
        smalltalk: share of documents that are no mathematics.
        second_turns: share of documents that have an earlier turn.
        vocab_size: of the tokenizer that is learned from the data.
        vocab_documents: documents that it is learned from.
        longest: a document of more tokens is left out.
    """

    seed: int = 0
    families: dict[str, float] = field(default_factory=dict)
    smalltalk: float = 0.01
    second_turns: float = 0.1
    vocab_size: int = 1024
    vocab_documents: int = 20_000
    longest: int = 1024


@dataclass(frozen=True)
class OptimizerRecipe:
    """AdamW under muP++.

    Attributes:
        lr: peak learning rate at `base_width`.
        base_width: hidden size at which hidden matrices have the learning rate `lr`; at other widths theirs is
            `lr * base_width / hidden_size`.
        betas: of the two moments.
        eps: of AdamW.
        weight_decay: of hidden matrices only, never of embeddings, norms and vectors.
        clip: largest norm of the gradient.
    """

    lr: float = 1e-3
    base_width: int = 1984
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0


@dataclass(frozen=True)
class ScheduleRecipe:
    """Linear warm-up, a plateau, and a linear decay to zero.

    Attributes:
        steps: optimiser steps in all.
        warmup: steps of rising learning rate.
        decay: steps of falling learning rate at the end; `steps - warmup` makes it fall from the peak on.
    """

    steps: int = 1000
    warmup: int = 100
    decay: int = 300

    def factor(self, step: int) -> float:
        """Share of the peak learning rate at a step (0-based)."""
        rising = (step + 1) / max(1, self.warmup)
        falling = (self.steps - step) / max(1, self.decay)
        return max(0.0, min(1.0, rising, falling))


@dataclass(frozen=True)
class RunRecipe:
    """How the run goes.

    Attributes:
        seed: of the initial weights.
        tokens_per_step: input tokens in a batch.
        precision: "float32", or "bfloat16" for matrix products in bfloat16 over float32 weights.
        log_every: steps between two lines of the log.
        save_every: steps between two checkpoints.
        eval_every: steps between two losses on unseen documents.
        eval_documents: how many unseen documents.
        threads: CPU threads of each worker, 0 for torch's own choice.
        workers: processes that share each step; one thread each is the fastest way to use several cores.
    """

    seed: int = 0
    tokens_per_step: int = 4096
    precision: str = "float32"
    log_every: int = 10
    save_every: int = 200
    eval_every: int = 200
    eval_documents: int = 256
    threads: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Recipe:
    """A whole recipe.

    Attributes:
        model: the shape; what the tokenizer decides is filled in by the run.
        data: where documents come from.
        optimizer: AdamW under muP++.
        schedule: the learning rate over time.
        run: how the run goes.
    """

    model: SambaYConfig
    data: DataRecipe = DataRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    run: RunRecipe = RunRecipe()

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file.

        Args:
            path: a TOML file with the tables `model`, `data`, `optimizer`, `schedule` and `run`.

        Raises:
            ConfigError: the file is missing or not TOML, or holds an unknown key or an impossible value.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist: give a recipe file, such as recipes/tutor.toml") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
        return cls.from_dict(content)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Recipe:
        """Build from parsed TOML; see `load`."""
        tables = [f.name for f in dataclasses.fields(cls)]
        unknown = set(content).difference(tables)
        if unknown:
            raise ConfigError(f"the recipe has an unknown table [{sorted(unknown)[0]}]: it knows {', '.join(tables)}")
        model = content.get("model", {})
        if not isinstance(model, dict):
            raise ConfigError("[model] must be a table")
        for key in _DERIVED:
            if key in model:
                raise ConfigError(f"[model] has {key} = {model[key]!r}, but {key} {_DERIVED[key]}")
        known = {f.name for f in dataclasses.fields(SambaYConfig)}.difference(_DERIVED)
        surplus = set(model) - known
        if surplus:
            raise ConfigError(f"[model] has an unknown key {sorted(surplus)[0]!r}: it knows {', '.join(sorted(known))}")
        data = _table(DataRecipe, content.get("data", {}), "data")
        recipe = cls(
            model=SambaYConfig.from_dict({**model, "vocab_size": data.vocab_size, "torch_dtype": "float32"}),
            data=data,
            optimizer=_table(OptimizerRecipe, content.get("optimizer", {}), "optimizer"),
            schedule=_table(ScheduleRecipe, content.get("schedule", {}), "schedule"),
            run=_table(RunRecipe, content.get("run", {}), "run"),
        )
        recipe._check()
        return recipe

    def _check(self) -> None:
        positive = {
            "data.vocab_documents": self.data.vocab_documents,
            "optimizer.lr": self.optimizer.lr,
            "optimizer.base_width": self.optimizer.base_width,
            "optimizer.eps": self.optimizer.eps,
            "optimizer.clip": self.optimizer.clip,
            "schedule.steps": self.schedule.steps,
            "run.tokens_per_step": self.run.tokens_per_step,
            "run.log_every": self.run.log_every,
            "run.save_every": self.run.save_every,
            "run.eval_every": self.run.eval_every,
            "run.eval_documents": self.run.eval_documents,
            "run.workers": self.run.workers,
        }
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value!r}: it must be positive")
        if self.data.longest < 2:
            raise ConfigError(f"data.longest is {self.data.longest}: it must be 2 or more")
        if not 0 <= self.optimizer.weight_decay < math.inf:
            raise ConfigError(f"optimizer.weight_decay is {self.optimizer.weight_decay!r}: it must be 0 or more")
        if not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in self.optimizer.betas):
            raise ConfigError(
                f"optimizer.betas is {list(self.optimizer.betas)}: it must be two numbers, 0 or more and below 1"
            )
        families = self.data.families
        for family, share in families.items():
            if family not in FAMILIES:
                raise ConfigError(f"data.families has {family!r}: choose from {', '.join(FAMILIES)}")
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < math.inf:
                raise ConfigError(f"data.families.{family} is {share!r}: it must be a number, 0 or more")
        if families and not any(families.values()):
            raise ConfigError("data.families are all 0: give at least one a share")
        for name in ("smalltalk", "second_turns"):
            if not 0 <= getattr(self.data, name) < 1:
                raise ConfigError(
                    f"data.{name} is {getattr(self.data, name)!r}: it must be a share, 0 or more and below 1"
                )
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self.schedule, name) <= self.schedule.steps:
                raise ConfigError(
                    f"schedule.{name} is {getattr(self.schedule, name)}: "
                    f"it must be from 0 to steps, {self.schedule.steps}"
                )
        if self.run.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"run.precision is {self.run.precision!r}: it must be 'float32' or 'bfloat16'")
        if self.run.threads < 0:
            raise ConfigError(f"run.threads is {self.run.threads}: it must be 0 (automatic) or more")

    @classmethod
    def of_run(cls, content: object) -> Recipe:
        """Build from what `to_dict` gave when a run was begun; keys younger than the run are at their defaults.

        Raises:
            ConfigError: it is no such thing, or has keys that this version does not know.
        """
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise ConfigError("it is no recipe")
        # Runs of the first version stored the derived fields, too.
        model = {key: value for key, value in content["model"].items() if key not in _DERIVED}
        return cls.from_dict({**content, "model": model})

    def to_dict(self) -> dict[str, Any]:
        """As plain data, to be kept beside a run and compared when it is resumed."""
        content = dataclasses.asdict(self)
        content["model"] = {key: value for key, value in content["model"].items() if key not in _DERIVED}
        return content


_T = TypeVar("_T", DataRecipe, OptimizerRecipe, ScheduleRecipe, RunRecipe)


def _table(kind: type[_T], values: object, name: str) -> _T:
    """Build one table, checking key names and types against its defaults."""
    if not isinstance(values, dict):
        raise ConfigError(f"[{name}] must be a table")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    defaults = kind()
    out: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"[{name}] has an unknown key {key!r}: it knows {', '.join(fields)}")
        default = getattr(defaults, key)
        if isinstance(default, tuple) and isinstance(value, list) and len(value) == len(default):
            value = tuple(value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            raise ConfigError(f"{name}.{key} is {value!r}: it must be of the type of its default, {default!r}")
        out[key] = value
    return kind(**out)
