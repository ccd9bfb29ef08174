"""What `recipes/` promises: the card of the bundled model can be written for the families and layers that there are."""

import importlib.util
from pathlib import Path

from sambay import PRESETS, LayerRole
from sambay.data.problems import FAMILIES
from sambay.train.recipe import Recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def test_the_model_card():
    spec = importlib.util.spec_from_file_location("bundle", RECIPES / "bundle.py")
    bundle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bundle)
    assert set(bundle.TOPICS) == set(FAMILIES)
    assert set(bundle.LAYERS) == set(LayerRole)
    recipe = Recipe.load(RECIPES / "tutor.toml")
    card = bundle.model_card(recipe.model, recipe, "| the table |\n")
    text = " ".join(card.split())
    assert "8 layers (2 Mamba, 2 sliding-window attention, 1 Mamba whose scan is the memory, 1 full attention" in text
    assert all(topic in text for topic in bundle.TOPICS.values())
    assert "\n| the table |\n" in card
    assert "in `\\boxed{}`" in text
    assert max(map(len, card.splitlines())) <= 120
    assert "plain attention" in bundle.model_card(PRESETS["tiny-plain"], recipe, "")
