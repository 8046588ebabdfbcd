"""The optimiser's step size, its state on disk, and what is said when a step went wrong."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neblina.core.errors import DivergenceError
from neblina.training.recipe import Recipe

SHARE = "share"  # of the recipe's learning rate that a group of parameters is trained at


def new_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]]) -> torch.optim.AdamW:
    """The recipe's optimiser of these parameters, or of groups of them, each at its SHARE of the learning rate."""
    chosen = recipe.optimizer
    return torch.optim.AdamW(parameters, lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay, fused=True)


def diverged(recipe: Recipe, step: int) -> DivergenceError:
    """What to say of a loss or a gradient that was not finite."""
    return DivergenceError(
        f"the loss or its gradient was not finite at step {step}. Lower optimizer.lr ({recipe.optimizer.lr:g}), "
        "raise optimizer.warmup, or look at the data."
    )


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of the step after `step` steps: a linear rise, then the recipe's fall over the whole run."""
    optimizer = recipe.optimizer
    rise = min(1.0, (step + 1) / (optimizer.warmup + 1))
    left = 1 - step / recipe.steps
    fall = {"none": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[optimizer.decay]
    return optimizer.lr * rise * fall


def pace(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Set the learning rate of the step after `step` steps."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, step) * group.get(SHARE, 1.0)


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put a stored state into a fused AdamW."""
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        # the fused update walks weights and moments in memory order, so they must be laid out alike
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])


def named_moments(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of an optimiser's `state_dict` by name, as safetensors hold them."""
    return {f"{number}.{name}": value for number, values in state["state"].items() for name, value in values.items()}


def numbered_moments(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The inverse of `named_moments`: what stands under "state" in an optimiser's `state_dict`."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    return moments
