"""The training loop: its loss and gradient, exact resuming, and what it refuses."""

import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from sambay import SamplingParams
from sambay.data.documents import Document
from sambay.engine import LLM
from sambay.errors import CheckpointError, ConfigError
from sambay.model import SambaY
from sambay.tokenizer import Tokenizer
from sambay.train import trainer as module
from sambay.train.recipe import Recipe
from sambay.train.trainer import Trainer, latest_checkpoint, summed_loss, token_losses
from sambay.train.vocabulary import PHI_CHAT_TEMPLATE, train_tokenizer

RECIPE = {
    "model": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2,
        "num_key_value_heads": 2, "sliding_window": 32, "mamba_d_state": 2, "mamba_dt_rank": 2,
        "max_position_embeddings": 1024,
    },
    "data": {"vocab_size": 300, "vocab_documents": 30, "longest": 120, "second_turns": 0.2, "smalltalk": 0.1},
    "optimizer": {"lr": 0.02, "base_width": 16},
    "schedule": {"steps": 6, "warmup": 2, "decay": 2},
    "run": {"tokens_per_step": 300, "log_every": 2, "save_every": 3, "eval_every": 6, "eval_documents": 4},
}  # fmt: skip


def make(**changes):
    """The tiny recipe, `table__key=value` changed."""
    content = {table: dict(values) for table, values in RECIPE.items()}
    for name, value in changes.items():
        table, key = name.split("__")
        content[table][key] = value
    return Recipe.from_dict(content)


def everything(trainer):
    """All that a run is: weights, moments, place."""
    tensors = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in trainer.optimizer.state[parameter].items():
                tensors[f"{key}:{name}"] = value.clone()
    return tensors, trainer.step, trainer.index


def assert_same(one, other):
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]), name


def log_of(directory):
    """The log without what the clock says."""
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "tokens_per_second")} for line in lines]


def collect(trainer):
    reports = []
    trainer.run(on_step=reports.append)
    return [(report.step, report.loss, report.grad_norm, report.lr, report.tokens) for report in reports]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of six steps without a stop: (directory, what each step reported, everything)."""
    directory = tmp_path_factory.mktemp("run") / "straight"
    trainer = Trainer(make(), directory)
    return directory, collect(trainer), everything(trainer)


def halfway(directory, **changes):
    """A run that was stopped after three steps."""
    trainer = Trainer(make(**changes), directory)
    for report in trainer.steps():
        if report.step == 3:
            break
    trainer.save()
    return trainer


# The loss


@pytest.fixture(scope="module")
def model():
    return SambaY.random(make().model, seed=3)


DOCUMENTS = [
    Document(tuple(range(10, 30)), 7, "a"),
    Document((5, 6), 1, "b"),
    Document(tuple(range(50, 55)), 0, "a"),
    Document(tuple(range(90, 160)), 40, "c"),
]


def naive_loss(model, document):
    """Cross-entropy of the completion, one document at a time and all logits computed."""
    ids = torch.tensor(document.ids)
    logits = model(ids[None, :-1])[0].double()
    first = max(1, document.prompt_length)
    return F.cross_entropy(logits[first - 1 :], ids[first:], reduction="sum")


def test_the_loss_is_that_of_each_document_by_itself(model):
    parts = token_losses(model, DOCUMENTS, "float32")
    assert [len(part) for part in parts] == [document.learned for document in DOCUMENTS]
    for part, document in zip(parts, DOCUMENTS, strict=True):
        assert part.sum().item() == pytest.approx(naive_loss(model, document).item(), rel=1e-5)


def test_the_gradient_of_packed_documents_is_the_sum(model):
    def gradient(loss):
        model.zero_grad()
        loss.backward()
        return {name: p.grad.double().clone() for name, p in model.named_parameters()}

    expected = gradient(torch.stack([naive_loss(model, document) for document in DOCUMENTS]).sum())
    got = gradient(summed_loss(model, DOCUMENTS, "float32"))
    scale = max(float(g.abs().max()) for g in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=1e-5 * scale, rtol=1e-3, msg=name)
    assert all(float(value.abs().max()) > 0 for value in expected.values())


def test_bfloat16_is_near(model):
    exact, near = (summed_loss(model, DOCUMENTS, precision).item() for precision in ("float32", "bfloat16"))
    assert near == pytest.approx(exact, rel=0.02)
    assert all(p.dtype is torch.float32 for p in model.parameters())


# A run


def test_what_a_run_leaves(straight):
    directory, reports, (_, step, index) = straight
    assert [report[0] for report in reports] == [1, 2, 3, 4, 5, 6]
    assert all(0 < loss < 8 and norm > 0 and 0 < tokens <= 300 for _, loss, norm, _, tokens in reports)
    assert [report[3] for report in reports] == pytest.approx([0.01, 0.02, 0.02, 0.02, 0.02, 0.01])
    assert step == 6
    assert index > 6
    assert sorted(p.name for p in directory.iterdir()) == [
        "chat_template.jinja", "checkpoint-6", "log.jsonl", "recipe.json", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    log = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [2, 4, 6, 6]
    assert log[-1]["eval"]["all"] > 0
    assert json.loads((directory / "recipe.json").read_text()) == json.loads(json.dumps(make().to_dict()))


def test_the_checkpoint_is_a_model(straight):
    llm = LLM(latest_checkpoint(straight[0]), device="cpu", max_num_seqs=1)
    assert llm.engine.end_ids == {llm.tokenizer.token_id("<|end|>"), llm.tokenizer.eos_token_id}
    output = llm.chat([{"role": "user", "content": "What is 2 + 2?"}], SamplingParams(max_tokens=5))[0]
    assert len(output.outputs[0].token_ids) <= 5


def test_the_model_has_the_tokens_of_its_tokenizer(tmp_path, monkeypatch):
    def made(texts, size, **options):
        right = train_tokenizer(texts, size, **options)
        config = {"bos_token": "<|user|>", "eos_token": "<|endoftext|>", "pad_token": "<|end|>"}
        return Tokenizer(right._backend, config, template=PHI_CHAT_TEMPLATE)

    monkeypatch.setattr(module, "train_tokenizer", made)
    config = Trainer(make(), tmp_path).model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 0, 4)


def test_a_run_is_reproducible(straight, tmp_path):
    trainer = Trainer(make(), tmp_path)
    assert collect(trainer) == straight[1]
    assert_same(everything(trainer), straight[2])


def test_seeds_make_another_run(straight, tmp_path):
    for changes in ({"run__seed": 1}, {"data__seed": 1}):
        trainer = Trainer(make(**changes), tmp_path / str(changes))
        assert next(trainer.steps()).loss != straight[1][0][1]


def test_evaluation_is_the_mean_over_unseen_problems(straight):
    trainer = Trainer(make(), straight[0], resume=True)
    losses = trainer.evaluate()
    assert losses == trainer.evaluate()
    assert set(losses) > {"all"}
    parts = [value for key, value in losses.items() if key != "all"]
    assert min(parts) <= losses["all"] <= max(parts)


def test_the_loss_falls(tmp_path):
    recipe = make(
        schedule__steps=30, schedule__warmup=4, schedule__decay=10, data__families={"arithmetic": 1.0},
        run__save_every=1000, run__eval_every=1000,
    )  # fmt: skip
    losses = [report[1] for report in collect(Trainer(recipe, tmp_path))]
    assert sum(losses[-3:]) / 3 < 0.75 * losses[0]


def test_a_run_ends_when_time_is_up(tmp_path):
    trainer = Trainer(make(), tmp_path)
    assert trainer.run(max_seconds=0) is False
    assert trainer.step == 1
    assert latest_checkpoint(tmp_path).name == "checkpoint-1"


# Resuming


def test_resuming_is_exact(straight, tmp_path):
    first = halfway(tmp_path)
    before = everything(first)
    del first
    resumed = Trainer(make(), tmp_path, resume=True)
    assert_same(everything(resumed), before)
    assert collect(resumed) == straight[1][3:]
    assert_same(everything(resumed), straight[2])
    again = Trainer(make(), tmp_path, resume=True)  # nothing remains to be done
    assert collect(again) == []
    assert_same(everything(again), straight[2])


def test_stopping_anywhere_loses_nothing(straight, tmp_path):
    """Leaving the iterator is no end: a second one continues."""
    trainer = Trainer(make(), tmp_path)
    losses = []
    while trainer.step < 6:
        for report in trainer.steps():
            losses.append(report.loss)
            break
    assert losses == [report[1] for report in straight[1]]
    assert_same(everything(trainer), straight[2])


@pytest.mark.slow
def test_resuming_with_workers_is_exact(tmp_path):
    whole = Trainer(make(run__workers=2, run__threads=1), tmp_path / "whole")
    reports = collect(whole)
    halfway(tmp_path / "parts", run__workers=2, run__threads=1)
    resumed = Trainer(make(run__workers=2, run__threads=1), tmp_path / "parts", resume=True)
    assert collect(resumed) == reports[3:]
    assert_same(everything(resumed), everything(whole))


@pytest.mark.slow
def test_workers_compute_the_same(straight, tmp_path):
    trainer = Trainer(make(run__workers=2, run__threads=1), tmp_path)
    for got, expected in zip(collect(trainer), straight[1], strict=True):
        assert got == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("model__hidden_size", 32), ("data__seed", 9), ("data__longest", 100), ("data__families", {"equations": 1.0}),
        ("optimizer__lr", 0.5), ("optimizer__betas", [0.5, 0.5]), ("schedule__warmup", 1), ("run__seed", 5),
        ("run__tokens_per_step", 200), ("run__precision", "bfloat16"),
    ],
)  # fmt: skip
def test_another_recipe_cannot_resume(straight, change, value):
    with pytest.raises(ConfigError, match=rf"{change.replace('__', '.')} is .* but the run in .* has") as caught:
        Trainer(make(**{change: value}), straight[0], resume=True)
    assert "\n" not in str(caught.value)


def test_a_run_may_be_prolonged_and_logged_otherwise(straight, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    recipe = make(
        schedule__steps=8, schedule__decay=4, run__log_every=1, run__save_every=1, run__eval_every=100,
        run__eval_documents=1, run__threads=1,
    )  # fmt: skip
    trainer = Trainer(recipe, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text()) == json.loads(json.dumps(recipe.to_dict()))
    assert [report[0] for report in collect(trainer)] == [7, 8]
    assert [p.name for p in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-8"]


def test_prolonging_before_the_decay_is_exact(straight, tmp_path):
    """As if the run had been meant to be that long from the first."""
    Trainer(make(schedule__steps=4, schedule__decay=0), tmp_path).run()
    prolonged = Trainer(make(), tmp_path, resume=True)
    assert collect(prolonged) == straight[1][4:]
    assert_same(everything(prolonged), straight[2])


def test_a_run_cannot_be_made_shorter_than_it_is(straight, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    before = (tmp_path / "run" / "recipe.json").read_bytes()
    with pytest.raises(ConfigError, match=r"schedule\.steps is 4, but the run in .* has done 6: raise it"):
        Trainer(make(schedule__steps=4), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "recipe.json").read_bytes() == before


def test_runs_of_other_versions(straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight[0], run)
    path = run / "recipe.json"
    content = json.loads(path.read_text())
    del content["run"]["workers"], content["optimizer"]["eps"], content["data"]["families"]
    content["model"]["vocab_size"] = 300
    path.write_text(json.dumps(content))
    (run / "checkpoint-6" / "trainer.json").write_text('{"step": 6, "index": 20}')
    Trainer(make(), run, resume=True)
    assert json.loads(path.read_text()) == json.loads(json.dumps(make().to_dict()))
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"optimizer\.eps is 0\.1, but the run in .* has 1e-08"):
        Trainer(make(optimizer__eps=0.1), run, resume=True)
    content["run"]["warp"] = 9
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"recipe\.json cannot be read \(\[run\] has an unknown key 'warp'"):
        Trainer(make(), run, resume=True)


def test_a_finished_run_starts_no_worker(straight, monkeypatch):
    trainer = Trainer(make(), straight[0], resume=True)
    monkeypatch.setattr(module, "GradientWorkers", None)
    assert list(trainer.steps()) == []


def test_a_directory_with_a_run_is_not_begun_again(straight):
    with pytest.raises(ConfigError, match=r"holds a run already: resume it \(--resume\) or choose another"):
        Trainer(make(), straight[0])


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume: start the run without --resume"):
        Trainer(make(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(tmp_path):
    Trainer(make(), tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    trainer = Trainer(make(optimizer__lr=0.5), tmp_path)
    assert trainer.step == 0
    assert json.loads((tmp_path / "recipe.json").read_text())["optimizer"]["lr"] == 0.5
    assert not (tmp_path / "log.jsonl").exists()
    with pytest.raises(ConfigError, match="nothing to save before the first step"):
        trainer.save()


@pytest.mark.parametrize("name", ["notes.txt", "tokenizer.json", "checkpoint-500/model.safetensors", ".git/config"])
def test_a_directory_of_something_else_is_left_alone(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    message = r"holds files that are of no run: choose a new or empty directory"
    with pytest.raises(ConfigError, match=message):
        Trainer(make(), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"
    with pytest.raises(ConfigError, match="is a file: choose a directory for the run"):
        Trainer(make(), file)


def test_a_recipe_that_cannot_begin_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="vocab_size is 100"):
        Trainer(make(data__vocab_size=100), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The log


def test_all_is_written_before_a_step_is_reported(tmp_path):
    seen = []

    def look(report):
        kinds = [] if report.step == 1 else ["eval" if "eval" in line else "loss" for line in log_of(tmp_path)]
        seen.append((report.step, kinds, [path.name for path in tmp_path.glob("checkpoint-*")]))

    recipe = make(schedule__steps=3, schedule__decay=1, run__save_every=2, run__eval_every=2)
    Trainer(recipe, tmp_path).run(on_step=look)
    assert seen == [
        (1, [], []),
        (2, ["loss", "eval"], ["checkpoint-2"]),
        (3, ["loss", "eval", "loss", "eval"], ["checkpoint-3"]),  # the end is told, whatever the intervals
    ]


class Stop(Exception):
    pass


@pytest.mark.parametrize("how", ["time", "on_step", "kill"])
def test_the_log_of_a_stopped_run_is_that_of_one_that_was_not(straight, tmp_path, how):
    trainer = Trainer(make(), tmp_path)

    def stop(report):
        if report.step == (5 if how == "kill" else 3):
            raise Stop

    if how == "time":
        trainer.run(max_seconds=0)
    else:
        with pytest.raises(Stop):
            trainer.run(on_step=stop)
        if how == "on_step":
            trainer.save()
        else:  # steps 4 and 5 were logged but not saved, and a line was half written
            assert [line["step"] for line in log_of(tmp_path)] == [2, 4]
            with (tmp_path / "log.jsonl").open("a") as file:
                file.write('{"step": 6, "lo')
    Trainer(make(), tmp_path, resume=True).run()
    assert log_of(tmp_path) == log_of(straight[0])
    Trainer(make(), tmp_path, resume=True).run()  # nothing remains, and nothing is written
    assert log_of(tmp_path) == log_of(straight[0])


def test_the_log_of_a_prolonged_run(tmp_path):
    Trainer(make(schedule__steps=3), tmp_path).run()
    assert [line["step"] for line in log_of(tmp_path)] == [2, 3, 3]
    before = log_of(tmp_path)
    Trainer(make(schedule__steps=5), tmp_path, resume=True).run()
    assert log_of(tmp_path)[:3] == before
    assert [line["step"] for line in log_of(tmp_path)] == [2, 3, 3, 4, 5, 5]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    tensors["exp_avg:embedding.weight"] = tensors["exp_avg:embedding.weight"][:3].clone()
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("optimizer.safetensors", truncate),
        ("optimizer.safetensors", reshape),
        ("optimizer.safetensors", lambda path: path.unlink()),
        ("trainer.json", lambda path: path.unlink()),
        ("trainer.json", lambda path: path.write_text("{}")),
        ("trainer.json", lambda path: path.write_text("nonsense")),
        ("model.safetensors", truncate),
        ("tokenizer.json", truncate),
        ("../recipe.json", lambda path: path.unlink()),
        ("../recipe.json", truncate),
    ],
)
def test_damaged_checkpoints_are_refused(straight, tmp_path, file, damage):
    run = tmp_path / "run"
    shutil.copytree(straight[0], run)
    damage(run / "checkpoint-6" / file)
    with pytest.raises(CheckpointError, match=file.removeprefix("../").replace(".", r"\.")):
        Trainer(make(), run, resume=True)


@pytest.mark.parametrize("at", ["save_pretrained", "save_file", "rename"])
def test_a_crash_during_a_save_keeps_the_checkpoint_before(straight, tmp_path, monkeypatch, at):
    trainer = halfway(tmp_path)
    next(trainer.steps())

    def crash(*_, **__):
        raise OSError("no space left on device")

    target = {"save_pretrained": trainer.model, "save_file": module, "rename": type(tmp_path)}[at]
    with monkeypatch.context() as patch:
        patch.setattr(target, at, crash)
        with pytest.raises(OSError, match="no space left"):
            trainer.save()
    assert latest_checkpoint(tmp_path).name == "checkpoint-3"
    resumed = Trainer(make(), tmp_path, resume=True)
    assert collect(resumed) == straight[1][3:]
    assert_same(everything(resumed), straight[2])
    assert [p.name for p in tmp_path.glob("*checkpoint*")] == ["checkpoint-6"]  # nothing is left lying about


def test_saving_a_step_twice(tmp_path):
    trainer = halfway(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "checkpoint-3").iterdir()}
    assert trainer.save() == tmp_path / "checkpoint-3"
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "checkpoint-3").iterdir()} == before


def test_latest_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-x", ".checkpoint-11.partial"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path).name == "checkpoint-10"


# What goes wrong


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(straight, tmp_path, monkeypatch, bad):
    trainer = halfway(tmp_path)
    before = everything(trainer)
    right = module.summed_loss
    monkeypatch.setattr(module, "summed_loss", lambda *a, **k: right(*a, **k) * bad)
    message = r"training diverged: at step 4 the loss is (nan|inf) and the norm of its gradient .*lower optimizer\.lr"
    with pytest.raises(ConfigError, match=message):
        next(trainer.steps())
    assert_same(everything(trainer), before)
    monkeypatch.setattr(module, "summed_loss", right)  # and what failed is forgotten
    assert [(report.loss, report.grad_norm) for report in trainer.steps()] == [r[1:3] for r in straight[1][3:]]
    assert_same(everything(trainer), straight[2])
    assert latest_checkpoint(tmp_path).name == "checkpoint-3"


def test_saving_leaves_what_a_person_put_beside_it(tmp_path):
    trainer = Trainer(make(), tmp_path)
    steps = trainer.steps()
    next(steps)
    trainer.save()
    for name in ("checkpoint-best", "checkpoint-1-backup"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file, none of ours")
    next(steps)
    assert trainer.save() == latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    steps.close()
    left = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert left == ["checkpoint-1-backup", "checkpoint-2", "checkpoint-7", "checkpoint-best"]
