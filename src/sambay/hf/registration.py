"""Our classes in the auto classes of transformers; ours win where transformers has some of the same name."""

from __future__ import annotations

from sambay.config import MODEL_TYPE

__all__ = ["register_config", "register_model"]


def register_config() -> None:
    """Let `AutoConfig` give `Phi4FlashConfig`."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from sambay.hf.config import Phi4FlashConfig

    AutoConfig.register(MODEL_TYPE, Phi4FlashConfig, exist_ok=True)


def register_model() -> None:
    """Let `AutoModelForCausalLM` give `Phi4FlashForCausalLM`."""
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    from sambay.hf.config import Phi4FlashConfig
    from sambay.hf.model import Phi4FlashForCausalLM

    AutoModelForCausalLM.register(Phi4FlashConfig, Phi4FlashForCausalLM, exist_ok=True)
