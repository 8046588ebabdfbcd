"""Averages of the weights whose length is chosen after training.

A power-function average weighs the weights θ(τ) of all steps τ up to n with a power of τ,

    θ̂_γ(n) = ∫_0^n p_γ,n(τ) θ(τ) dτ,    p_γ,n(τ) = (γ + 1) τ^γ / n^{γ+1},

and is kept step by step with the decay β_n = (1 − 1/n)^{γ+1}. Its length is the standard deviation of its profile over
n,

    σ_rel = sqrt( (γ + 1) / ((γ + 2)² (γ + 3)) ).

Two of them, of lengths 0.05 and 0.10, run beside training and are stored now and then. The average of any other length
is the combination Σ_i c_i θ̂_i of all stored ones whose profile Σ_i c_i p_i comes closest to its own, in least squares:
A c = b with A_ij = ⟨p_i, p_j⟩ and b_i = ⟨p_i, p⟩, where for n_1 <= n_2

    ⟨p_γ1,n1, p_γ2,n2⟩ = (γ_1 + 1)(γ_2 + 1) / (γ_1 + γ_2 + 1) · n_1^{γ_2} / n_2^{γ_2+1}.

Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. CVPR 2024, section 3, appendix C and
algorithm 3.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from neblina.core.atomic import write_file
from neblina.core.errors import CheckpointError, SettingError
from neblina.core.tensors import save_tensors

LENGTHS = (0.05, 0.10)
_LONGEST = 12**-0.5  # γ = 0: all weights count alike


def exponent(length: float) -> float:
    """γ of the power-function average of a relative length σ_rel.

    Raises:
        SettingError: a length outside (0, 0.288), beyond which early weights would count more than late ones.
    """
    if not 0 < length < _LONGEST:
        raise SettingError(
            f"an average's length is a share of the training between 0 and {_LONGEST:.3f}, and {length:g} is not; "
            "0.05 to 0.15 are usual"
        )
    # the definition of σ_rel, solved for γ: a cubic with one root above −1
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(roots.real.max())


class PowerAverages:
    """Second sets of weights, one a length, that follow a network."""

    def __init__(self, net: nn.Module, lengths: Sequence[float] = LENGTHS) -> None:
        self.nets = {length: copy.deepcopy(net).eval().requires_grad_(False) for length in lengths}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Move towards the weights after `step` steps, counted from 1."""
        theirs: list[Tensor] = list(net.parameters())
        for length, mine in self.nets.items():
            decay = (1 - 1 / step) ** (exponent(length) + 1)
            torch._foreach_lerp_(list(mine.parameters()), theirs, 1 - decay)
            for own, other in zip(mine.buffers(), net.buffers(), strict=True):
                own.copy_(other)

    def state(self) -> dict[str, Tensor]:
        """All weights by length and name."""
        return {
            f"{length:g}/{name}": tensor
            for length, mine in self.nets.items()
            for name, tensor in mine.state_dict().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a stored state."""
        for length, mine in self.nets.items():
            mine.load_state_dict({name: state[f"{length:g}/{name}"] for name in mine.state_dict()})


@dataclass(frozen=True)
class Profile:
    """The weights that one average gives to the steps.

    Attributes:
        step: n, how far training had come.
        length: σ_rel.
    """

    step: int
    length: float

    def dot(self, other: "Profile") -> float:
        """⟨p_1, p_2⟩."""
        early, late = sorted((self, other), key=lambda one: one.step)
        first, second = exponent(early.length), exponent(late.length)
        share: float = (early.step / late.step) ** second / late.step
        return (first + 1) * (second + 1) / (first + second + 1) * share


def combination(stored: Sequence[Profile], wanted: Profile) -> tuple[list[float], float]:
    """The c_i that come closest to a profile, and by how much they miss it: ‖Σ c_i p_i − p‖ / ‖p‖."""
    inner = np.array([[one.dot(other) for other in stored] for one in stored])
    towards = np.array([one.dot(wanted) for one in stored])
    # neighbouring profiles are nearly alike: directions that rounding decides about are left out
    found = np.linalg.lstsq(inner, towards, rcond=1e-12)[0]
    missed = found @ inner @ found - 2 * found @ towards + wanted.dot(wanted)
    return [float(one) for one in found], float(np.sqrt(max(missed, 0) / wanted.dot(wanted)))


def save_snapshot(folder: Path, step: int, averages: PowerAverages) -> None:
    """Store the averages after `step` steps.

    Raises:
        StorageError: the disk is full or refuses.
    """
    write_file(_place(folder, step), lambda aside: save_tensors(averages.state(), aside))


def drop_snapshots_after(folder: Path, step: int) -> None:
    """Delete what was stored after a step: by a run that was cut off, or by another one."""
    for later, place in list_snapshots(folder).items():
        if later > step:
            place.unlink()


def list_snapshots(folder: Path) -> dict[int, Path]:
    """The snapshots of a run by step, earliest first."""
    places = sorted(folder.glob("step-*.safetensors"))
    return {int(place.stem.removeprefix("step-")): place for place in places}


def reconstruct(folder: Path, length: float) -> tuple[dict[str, Tensor], float]:
    """The average of a relative length over the whole run, by name, and how far its profile is missed.

    Raises:
        CheckpointError: no snapshots, or a damaged one.
        SettingError: a length that no average has.
    """
    exponent(length)
    places = list_snapshots(folder)
    if not places:
        raise CheckpointError(f"{folder} holds no snapshots: train with --training.snapshots-every")
    stored = [Profile(step, own) for step in places for own in LENGTHS]
    found, missed = combination(stored, Profile(max(places), length))
    shares = dict(zip(stored, found, strict=True))
    result: dict[str, Tensor] = {}
    for step, place in places.items():
        tensors = _read(place)
        for own in LENGTHS:
            prefix = f"{own:g}/"
            for key in (one for one in tensors if one.startswith(prefix)):
                name, part = key.removeprefix(prefix), shares[Profile(step, own)] * tensors[key].double()
                result[name] = result[name] + part if name in result else part
    return {name: tensor.float() for name, tensor in result.items()}, missed


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def _read(place: Path) -> dict[str, Tensor]:
    try:
        return load_file(place)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"snapshot {place} is damaged or cut short: {error}") from error
