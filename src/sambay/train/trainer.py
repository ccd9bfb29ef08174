"""The training loop: one step after the other, logged, checkpointed, and resumed exactly.

A run directory holds `recipe.json`, the tokenizer, `log.jsonl` and `checkpoint-N/`; a checkpoint is a model in
the Hugging Face layout plus the optimiser's moments, the place in the data, and the steps that the log has yet to
tell of. Resuming continues with the same numbers, and the same log, as a run that was never stopped.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sambay.checkpoint import save_generation_config
from sambay.data.documents import Document, ProblemSource, collate, completion_text, fill
from sambay.data.problems import problem_at, smalltalk_at
from sambay.errors import CheckpointError, ConfigError
from sambay.files import atomic_write
from sambay.model import SambaY
from sambay.ops import backend
from sambay.tokenizer import Tokenizer
from sambay.train.optimizer import build_optimizer
from sambay.train.parallel import GradientWorkers, split_documents
from sambay.train.recipe import Recipe
from sambay.train.vocabulary import train_tokenizer

__all__ = ["StepReport", "Trainer", "latest_checkpoint"]

_OPTIMIZER = "optimizer.safetensors"
_PROGRESS = "trainer.json"
_RECIPE = "recipe.json"
_LOG = "log.jsonl"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

_MAY_CHANGE = {
    "schedule": ("steps", "decay"),
    "run": ("log_every", "save_every", "eval_every", "eval_documents", "threads", "workers"),
}
"""What a resumed run may do otherwise: how long it goes and how it is watched, not what its steps compute."""


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: steps done, this one included.
        loss: mean cross-entropy over learned tokens, in nats.
        grad_norm: norm of the gradient before clipping.
        lr: learning rate of hidden matrices.
        tokens: input tokens of the step.
        seconds: wall time of the step.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int
    seconds: float


class Trainer:
    """One run in one directory.

    Args:
        recipe: what to do.
        directory: of the run, made if needed.
        resume: continue the latest checkpoint of the directory. Without it the directory must be new or empty,
            or hold a run that ended before its first checkpoint, which begins anew.

    Raises:
        ConfigError: the directory holds a run or something else, or the run is one of another recipe.
        CheckpointError: there is nothing to resume.
    """

    def __init__(self, recipe: Recipe, directory: str | Path, *, resume: bool = False) -> None:
        self.directory = Path(directory)
        if recipe.run.threads:
            backend.use_threads(recipe.run.threads)
        checkpoint = latest_checkpoint(self.directory)
        self.recipe = recipe
        self.step, self.index = 0, 0
        self._unlogged: list[StepReport] = []
        if not resume:
            self._check_new(checkpoint)
            self._begin()
        elif checkpoint is None:
            raise CheckpointError(f"{self.directory} holds no checkpoint to resume: start the run without --resume")
        else:
            self._check_recipe()
            self.tokenizer = Tokenizer.from_pretrained(checkpoint)
            self.model = SambaY.from_pretrained(checkpoint, dtype=torch.float32).train()
            self.optimizer = build_optimizer(self.model, recipe.optimizer)
            self._restore(checkpoint)
            if self.step > recipe.schedule.steps:
                raise ConfigError(
                    f"schedule.steps is {recipe.schedule.steps}, but the run in {self.directory} has done {self.step}: "
                    "raise it, or begin another run"
                )
            self._forget_later_log()
            self._write_recipe()
        data = recipe.data
        self._source = ProblemSource(
            self.tokenizer,
            seed=data.seed,
            families=data.families or None,
            smalltalk=data.smalltalk,
            second_turns=data.second_turns,
        )

    def _check_new(self, checkpoint: Path | None) -> None:
        if self.directory.exists() and not self.directory.is_dir():
            raise ConfigError(f"{self.directory} is a file: choose a directory for the run")
        if not (self.directory / _RECIPE).exists():
            if self.directory.exists() and any(self.directory.iterdir()):
                raise ConfigError(f"{self.directory} holds files that are of no run: choose a new or empty directory")
        elif checkpoint is not None:
            raise ConfigError(f"{self.directory} holds a run already: resume it (--resume) or choose another directory")

    def _begin(self) -> None:
        data = self.recipe.data
        texts = (
            part
            for i in range(data.vocab_documents)
            for problem in (
                problem_at(data.seed, i, "train", data.families or None) if i % 50 else smalltalk_at(data.seed, i),
            )
            for part in (problem.question, completion_text(problem))
        )
        self.tokenizer = train_tokenizer(
            texts, data.vocab_size, model_max_length=self.recipe.model.max_position_embeddings
        )
        config = replace(
            self.recipe.model,
            vocab_size=self.tokenizer.vocab_size,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.model = SambaY.random(config, seed=self.recipe.run.seed).train()
        self.optimizer = build_optimizer(self.model, self.recipe.optimizer)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_recipe()  # first: it marks the directory as a run's
        (self.directory / _LOG).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
        self.tokenizer.save_pretrained(self.directory)

    def _write_recipe(self) -> None:
        atomic_write(self.directory / _RECIPE, json.dumps(self.recipe.to_dict(), indent=2).encode())

    def _check_recipe(self) -> None:
        """A run may be prolonged or logged otherwise, but not change what its steps compute."""
        path = self.directory / _RECIPE
        try:
            before = Recipe.of_run(json.loads(path.read_text(encoding="utf-8"))).to_dict()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}), so the run cannot be resumed") from None
        for table, values in self.recipe.to_dict().items():
            for key, value in values.items():
                if value != before[table][key] and key not in _MAY_CHANGE.get(table, ()):
                    raise ConfigError(
                        f"{table}.{key} is {value!r}, but the run in {self.directory} has {before[table][key]!r}: "
                        "resume with the recipe that it was begun with"
                    )

    def _forget_later_log(self) -> None:
        """Drop what a run that was killed logged after its checkpoint: these steps come again."""
        path = self.directory / _LOG
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line of a run that was killed
                if json.loads(line)["step"] <= self.step:
                    kept.append(line + "\n")
        atomic_write(path, "".join(kept).encode())

    def steps(self) -> Iterator[StepReport]:
        """Run the remaining steps, yielding after each. Stop iterating at any step; nothing is lost."""
        run, schedule = self.recipe.run, self.recipe.schedule
        remaining = schedule.steps - self.step
        if remaining <= 0:
            return
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        loss_sum = functools.partial(summed_loss, precision=run.precision)
        workers = GradientWorkers(self.model, loss_sum, run.workers - 1, run.threads or 1)
        try:
            data = fill(self._source, self.index, run.tokens_per_step, self.recipe.data.longest)
            for documents, index in itertools.islice(data, remaining):
                begun = time.perf_counter()
                factor = schedule.factor(self.step)
                for group in self.optimizer.param_groups:
                    group["lr"] = group["lr_peak"] * factor
                learned = sum(document.learned for document in documents)
                own, *others = split_documents(documents, run.workers)
                self.optimizer.zero_grad(set_to_none=True)  # a step that failed leaves its gradients behind
                workers.start(others, 1 / learned)
                loss = loss_sum(self.model, own) / learned
                loss.backward()
                mean = loss.item() + workers.collect()
                norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.optimizer.clip)
                if not (math.isfinite(mean) and torch.isfinite(norm)):
                    raise ConfigError(
                        f"training diverged: at step {self.step + 1} the loss is {mean} and the norm of its gradient "
                        f"{norm.item()}; begin a new run with a lower optimizer.lr than {self.recipe.optimizer.lr} "
                        "or a longer schedule.warmup"
                    )
                self.optimizer.step()
                self.step += 1
                self.index = index
                lr = self.optimizer.param_groups[0]["lr"]
                tokens = sum(len(document.ids) - 1 for document in documents)
                yield StepReport(self.step, mean, norm.item(), lr, tokens, time.perf_counter() - begun)
        finally:
            workers.close()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean loss in nats over learned tokens of unseen problems, by family and together ("all")."""
        data, run = self.recipe.data, self.recipe.run
        source = ProblemSource(self.tokenizer, seed=data.seed, split="test", families=data.families or None)
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        documents = 0
        for step, _ in fill(source, 0, run.tokens_per_step, data.longest):
            for document, values in zip(step, token_losses(self.model, step, run.precision), strict=True):
                for key in (document.label, "all"):
                    totals[key] = totals.get(key, 0.0) + values.sum().item()
                    counts[key] = counts.get(key, 0) + values.numel()
            documents += len(step)
            if documents >= run.eval_documents:
                break
        return {key: totals[key] / counts[key] for key in sorted(totals)}

    def run(self, *, max_seconds: float | None = None, on_step: Callable[[StepReport], None] | None = None) -> bool:
        """Train to the end or until time is up, logging, evaluating and saving on the way and at the end.

        Args:
            max_seconds: stop after the step during which this much time has passed.
            on_step: called after every step, when all is written that belongs to it; it may raise to stop the
                run, which loses no step once `save` has been called.

        Returns:
            True when all steps of the schedule are done.
        """
        begun = time.perf_counter()
        run = self.recipe.run
        steps = self.recipe.schedule.steps
        for report in self.steps():
            self._unlogged.append(report)
            last = self.step == steps
            if last or self.step % run.log_every == 0:
                self._log(self._unlogged)
                self._unlogged = []
            if last or self.step % run.eval_every == 0:
                losses = self.evaluate()
                self._write_log({"step": self.step, "eval": {k: round(v, 5) for k, v in losses.items()}})
            late = max_seconds is not None and time.perf_counter() - begun >= max_seconds
            if last or late or self.step % run.save_every == 0:
                self.save()
            if on_step is not None:
                on_step(report)
            if late:
                break
        return self.step >= steps

    def _log(self, window: list[StepReport]) -> None:
        last, seconds = window[-1], sum(report.seconds for report in window)
        tokens = sum(report.tokens for report in window)
        self._write_log(
            {
                "step": last.step,
                "loss": round(sum(report.loss for report in window) / len(window), 5),
                "grad_norm": round(last.grad_norm, 4),
                "lr": last.lr,
                "documents": self.index,
                "tokens_per_second": round(tokens / seconds, 1),
                "time": round(time.time(), 1),
            }
        )

    def _write_log(self, entry: dict[str, object]) -> None:
        with (self.directory / _LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def save(self) -> Path:
        """Write a checkpoint; the one before it is removed only when this one is whole.

        Raises:
            ConfigError: no step has been done yet.
        """
        if not self.step:
            raise ConfigError("there is nothing to save before the first step")
        target = self.directory / f"checkpoint-{self.step}"
        if target.exists():  # whole, and of the same step: it holds the same
            return target
        for remnant in self.directory.glob(".checkpoint-*.partial"):
            shutil.rmtree(remnant)
        partial = self.directory / f".checkpoint-{self.step}.partial"
        self.model.save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        write_generation_config(self.tokenizer, partial)
        names = [name for group in self.optimizer.param_groups for name in group["names"]]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments: dict[str, Tensor] = {}
        for name, parameter in zip(names, parameters, strict=True):
            for key, value in self.optimizer.state[parameter].items():
                moments[f"{key}:{name}"] = value
        atomic_write(partial / _OPTIMIZER, lambda path: save_file(moments, path))
        unlogged = [asdict(report) for report in self._unlogged]
        progress = {"step": self.step, "index": self.index, "unlogged": unlogged}
        atomic_write(partial / _PROGRESS, json.dumps(progress).encode())
        earlier = [path for _, path in _checkpoints(self.directory)]
        partial.rename(target)
        for path in earlier:
            shutil.rmtree(path)
        return target

    def _restore(self, checkpoint: Path) -> None:
        try:
            progress = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))
            self.step, self.index = progress["step"], progress["index"]
            # Checkpoints of the first version have none.
            self._unlogged = [StepReport(**report) for report in progress.get("unlogged", [])]
            with safe_open(checkpoint / _OPTIMIZER, framework="pt") as file:
                for group in self.optimizer.param_groups:
                    for name, parameter in zip(group["names"], group["params"], strict=True):
                        state = {key: file.get_tensor(f"{key}:{name}").clone() for key in _MOMENTS}
                        if any(state[key].shape != parameter.shape for key in _MOMENTS[1:]):
                            raise ValueError(f"the moments of {name} are of another shape")
                        self.optimizer.state[parameter] = state
        except Exception as error:
            raise CheckpointError(
                f"{checkpoint} cannot be resumed ({error}): it lacks a whole {_OPTIMIZER} or {_PROGRESS}"
            ) from None


def token_losses(model: SambaY, documents: Sequence[Document], precision: str) -> tuple[Tensor, ...]:
    """Cross-entropy in nats of every learned token, one tensor per document.

    Args:
        model: the model.
        documents: of at least two tokens each.
        precision: "float32", or "bfloat16" for matrix products in bfloat16.
    """
    packed = collate(documents, model.device)
    mixed = torch.autocast(model.device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with mixed:
        logits = model.run(packed.batch, None)
    losses: Tensor = F.cross_entropy(logits.float(), packed.targets, reduction="none")
    parts: tuple[Tensor, ...] = losses.split(packed.counts)
    return parts


def summed_loss(model: SambaY, documents: Sequence[Document], precision: str) -> Tensor:
    """The sum of `token_losses`, a scalar."""
    return torch.cat(token_losses(model, documents, precision)).sum()


def write_generation_config(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `generation_config.json`: a reply ends at `<|end|>` or at the end of the text."""
    ends = [tokenizer.token_id("<|end|>"), tokenizer.eos_token_id]
    content = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": [token for token in ends if token is not None],
        "pad_token_id": tokenizer.pad_token_id,
    }
    save_generation_config(content, directory)


def latest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint of the most steps in a run directory, or None."""
    found = _checkpoints(directory)
    return max(found)[1] if found else None


def _checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """Steps and directories of the run's own checkpoints; what a person named `checkpoint-best` is none."""
    named = [(re.fullmatch(r"checkpoint-([0-9]+)", path.name), path) for path in directory.glob("checkpoint-*")]
    return [(int(match[1]), path) for match, path in named if match and path.is_dir()]
