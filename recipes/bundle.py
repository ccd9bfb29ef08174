"""Turn a finished run into the model that the package ships: smaller weights, a model card, the log.

    python recipes/bundle.py runs/tutor

Weights are stored in float16 and run in float32 (`torch_dtype` of the configuration); the accuracy on the card is
measured on what was written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import textwrap
from pathlib import Path

import torch

from sambay import LLM, LayerRole, SambaY, SambaYConfig, __version__
from sambay.checkpoint import load_generation_config, save_config, save_generation_config, save_weights
from sambay.data.problems import FAMILIES
from sambay.eval.problems import Report, evaluate_problems
from sambay.files import atomic_write
from sambay.progress import task_progress
from sambay.train.recipe import Recipe
from sambay.train.trainer import latest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src/sambay/assets/tutor"
BEGIN, END = "<!-- model card: begin -->", "<!-- model card: end -->"
COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")

LAYERS = {
    LayerRole.MAMBA: "Mamba",
    LayerRole.SLIDING: "sliding-window attention",
    LayerRole.MEMORY: "Mamba whose scan is the memory",
    LayerRole.FULL: "full attention",
    LayerRole.GMU: "gated memory unit",
    LayerRole.CROSS: "cross-attention",
}
TOPICS = {
    "arithmetic": "integer arithmetic with powers and square roots",
    "order_of_operations": "the order of operations",
    "fractions": "fractions and mixed numbers",
    "equations": "linear equations",
    "percentages": "percentages and simple interest",
    "word_problems": "simple word problems",
    "decimals": "decimals",
}


def main() -> None:
    """Bundle a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    checkpoint = latest_checkpoint(arguments.run)
    if checkpoint is None:
        raise SystemExit(f"{arguments.run} holds no checkpoint")
    write_model(checkpoint)
    shutil.copyfile(arguments.run / "log.jsonl", ROOT / "recipes/tutor.log.jsonl")
    if (arguments.run / "loss.png").exists():
        shutil.copyfile(arguments.run / "loss.png", ROOT / "docs/tutor-loss.png")
    with task_progress("Solving") as bar:
        done = 0

        def on_done(_: object) -> None:
            nonlocal done
            done += 1
            bar.update(done, arguments.problems)

        report = evaluate_problems(LLM(max_num_seqs=64), arguments.problems, arguments.seed, on_done=on_done)
    steps = json.loads((checkpoint / "trainer.json").read_text())
    card = table(report, arguments, steps)
    recipe = Recipe.of_run(json.loads((arguments.run / "recipe.json").read_text(encoding="utf-8")))
    atomic_write(TARGET / "README.md", model_card(SambaYConfig.from_pretrained(TARGET), recipe, card).encode())
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    atomic_write(ROOT / "README.md", f"{before}{BEGIN}\n{card}{END}{rest.split(END)[1]}".encode())
    print(card)


def write_model(checkpoint: Path) -> None:
    """Write weights, configuration and tokenizer."""
    model = SambaY.from_pretrained(checkpoint, dtype=torch.float32)
    config = dataclasses.replace(model.config, torch_dtype="float32")
    shutil.rmtree(TARGET, ignore_errors=True)
    save_weights(model.to(torch.float16), TARGET)
    save_config(config, TARGET)
    for name in COPIED:
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, TARGET / name)
    # It calculates: the likeliest digit is the one.
    save_generation_config(load_generation_config(TARGET) | {"do_sample": False}, TARGET)


def model_card(config: SambaYConfig, recipe: Recipe, accuracy: str) -> str:
    """What the model is, by its configuration and the recipe of its run, and how well it does."""
    plan = config.layer_plan()
    layers = ", ".join(f"{plan.count(role)} {name}" for role, name in LAYERS.items() if role in plan)
    *topics, last = (TOPICS[family] for family in FAMILIES)
    attention = "differential" if config.differential_attention else "plain"
    first = (
        f"A SambaY model with {attention} attention, {config.num_parameters() / 1e6:.1f} million parameters, that "
        "solves school mathematics in written steps and ends in `\\boxed{}`: "
        f"{config.num_hidden_layers} layers ({layers}), hidden size {config.hidden_size}, windows of "
        f"{config.sliding_window} tokens, a context of {config.max_position_embeddings:,}, a vocabulary of "
        f"{config.vocab_size:,} tokens in which every digit is one, the chat format of Phi-4-mini-flash-reasoning."
    )
    second = (
        "It is there to be run, tested and trained on a laptop. "
        f"It knows {', '.join(topics)} and {last} in English, as `sambay.data.problems` words them, and nothing "
        "else; on other questions it says so or talks nonsense."
    )
    products = ", bfloat16 products over float32 weights" if recipe.run.precision == "bfloat16" else ", float32"
    training = (
        "`sambay train recipes/tutor.toml`, on two CPU cores, AdamW under muP++ (residual branches scaled by "
        f"{config.residual_multiplier:g}, no weight decay on embeddings, norms and vectors){products}. The data is "
        "generated, so there is nothing to download; the log is `recipes/tutor.log.jsonl`. Weights are stored in "
        "float16 and run in float32."
    )
    first, second, training = (textwrap.fill(text, 118, break_on_hyphens=False) for text in (first, second, training))
    return CARD.format(first=first, second=second, training=training, table=accuracy, version=__version__)


def table(report: Report, arguments: argparse.Namespace, steps: dict[str, int]) -> str:
    """The accuracy by family, and how it was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout
    rows = [*report.families.items(), ("**all**", report.total)]
    lines = [
        "| family | problems | solved | accuracy | 95 % interval |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name.replace('_', ' ')} | {s.count} | {s.correct} | {s.accuracy:.1%} "
            f"| {s.interval[0]:.1%} to {s.interval[1]:.1%} |"
            for name, s in rows
        ),
    ]
    how = (
        f"Greedy, one attempt, `sambay eval --problems {arguments.problems} --seed {arguments.seed}`, after "
        f"{steps['step']:,} steps and {steps['index']:,} training problems (code at {commit.strip()}); "
        f"{report.mean_tokens:.0f} tokens a solution, {report.ended:.1%} of them ended by themselves."
    )
    return "\n".join(lines) + f"\n\n{how}\n"


CARD = """# The bundled tutor

{first}

{second}

## Accuracy

On problems that occur nowhere in its training (problems are split by a hash of their mathematics, not of their
wording).

{table}
## Training

{training}

Made with sambay {version}. MIT licence.
"""

if __name__ == "__main__":
    main()
