"""AdamW with the parameter groups of muP++.

Source: arXiv 2507.06607, table of muP++: hidden matrices learn at a rate that falls with the width; embeddings,
unembedding, norms and vectors keep the base rate and are never decayed.
"""

from __future__ import annotations

import torch
from torch import nn

from sambay.model import SambaY
from sambay.train.recipe import OptimizerRecipe

__all__ = ["build_optimizer", "parameter_groups"]


def parameter_groups(model: SambaY, recipe: OptimizerRecipe) -> list[dict[str, object]]:
    """Split a model's trainable parameters into hidden matrices and the rest.

    Args:
        model: the model.
        recipe: learning rate, base width and weight decay.

    Returns:
        Two groups with `params`, `names`, `lr`, `lr_peak` and `weight_decay`.
    """
    matrices: dict[str, nn.Parameter] = {}
    rest: dict[str, nn.Parameter] = {}
    hidden = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (matrices if id(parameter) in hidden else rest)[name] = parameter
    hidden_lr = recipe.lr * recipe.base_width / model.config.hidden_size
    return [
        {
            "params": list(group.values()),
            "names": list(group),
            "lr": lr,
            "lr_peak": lr,
            "weight_decay": decay,
        }
        for group, lr, decay in ((matrices, hidden_lr, recipe.weight_decay), (rest, recipe.lr, 0.0))
    ]


def build_optimizer(model: SambaY, recipe: OptimizerRecipe) -> torch.optim.AdamW:
    """AdamW over the groups of `parameter_groups`, as one fused pass over the parameters."""
    return torch.optim.AdamW(parameter_groups(model, recipe), betas=recipe.betas, eps=recipe.eps, fused=True)
