"""Registration, in processes of their own: what is imported, and in which order, is the point."""

import importlib
import subprocess
import sys
import types

import pytest

transformers = pytest.importorskip("transformers")

OURS = "import sambay"
CHECK = """
import sys
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
config = AutoConfig.for_model("phi4flash")
assert type(config).__module__ == "sambay.hf.config", type(config)
assert MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__module__ == "sambay.hf.model"
assert not [f for f in sys.meta_path if type(f).__name__ == "_AutoClassFinder"]
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def test_sambay_first_and_transformers_is_not_imported():
    run(f"{OURS}\nimport sys; assert 'transformers' not in sys.modules\n{CHECK}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "theirs",
    [
        "from transformers import AutoModelForCausalLM",
        "import transformers",
        "import transformers.generation.utils",
        "import transformers.modeling_layers",  # imports the auto classes from within
        "import transformers.trainer",
    ],
)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_either_order(theirs, first):
    run("\n".join([OURS, theirs, CHECK] if first == "ours" else [theirs, OURS, CHECK]))


def test_a_class_of_transformers_with_the_same_name_gives_way(monkeypatch):
    from transformers.models.auto import configuration_auto, modeling_auto

    from sambay.hf.registration import register_config, register_model

    monkeypatch.setitem(configuration_auto.CONFIG_MAPPING._mapping, "phi4flash", "Phi4FlashConfig")
    names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    monkeypatch.setitem(names, "phi4flash", "Phi4FlashForCausalLM")
    register_config()
    register_model()
    config = transformers.AutoConfig.for_model("phi4flash")
    assert type(config).__module__ == "sambay.hf.config"
    assert modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__module__ == "sambay.hf.model"


def test_a_failure_warns_and_does_not_break_the_import(monkeypatch):
    from sambay import _autoregister
    from sambay.hf import registration

    def fail():
        raise RuntimeError("too old")

    monkeypatch.setattr(registration, "register_config", fail)
    with pytest.warns(RuntimeWarning, match=r"too old.*pip install"):
        _autoregister.install()
    assert not any(isinstance(finder, _autoregister._AutoClassFinder) for finder in sys.meta_path)


def test_without_transformers(monkeypatch):
    from sambay import _autoregister
    from sambay.errors import MissingExtraError

    before = list(sys.meta_path)
    monkeypatch.delitem(sys.modules, "transformers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _autoregister.install()
    assert sys.meta_path == before
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "sambay.hf", raising=False)
    with pytest.raises(MissingExtraError, match=r"The transformers classes needs transformers.*sambay\[hf\]"):
        importlib.import_module("sambay.hf")


def test_the_public_names():
    import sambay.hf

    assert dir(sambay.hf) == sorted(sambay.hf.__all__)
    for name in sambay.hf.__all__:
        assert isinstance(getattr(sambay.hf, name), type)
    with pytest.raises(AttributeError, match="nothing"):
        sambay.hf.nothing  # noqa: B018
    assert isinstance(sambay.hf, types.ModuleType)
