"""How different pictures look: the distance of what a pretrained network sees in them.

With features f_l(x) of layer l, each place's channels scaled to length 1,

    d(x, x̂) = Σ_l mean over places of ‖f_l(x) − f_l(x̂)‖².

The network is a TorchScript file that the user gives, none by default. It is run by TorchScript's own interpreter, so
it cannot call Python, but it is a program: give only files whose source you trust.

Zhang et al. The Unreasonable Effectiveness of Deep Features as a Perceptual Metric. CVPR 2018, eq. 1 with w = 1.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from neblina.core.errors import SettingError

Features = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Perceptual:
    """A feature extractor.

    Attributes:
        features: of pictures in [−1, 1], shape (B, C, H, W): tensors of shape (B, channels, *).
        digest: SHA-256 of its file.
    """

    features: Features
    digest: str

    def __call__(self, made: Tensor, pictures: Tensor) -> Tensor:
        """The mean distance of pictures, both of shape (B, C, H, W)."""
        return perceptual_distance(self.features(made), self.features(pictures))


def perceptual_distance(ones: list[Tensor], others: list[Tensor]) -> Tensor:
    """d, for features of shape (B, channels, *) each; the mean over the batch."""
    distances = [
        (F.normalize(one.float(), dim=1) - F.normalize(other.float(), dim=1)).square().sum(1).mean()
        for one, other in zip(ones, others, strict=True)
    ]
    return torch.stack(distances).sum()


def load_perceptual(path: str, shape: tuple[int, int, int], device: torch.device) -> Perceptual:
    """The extractor of a TorchScript file, tried on one picture.

    Args:
        shape: (C, H, W) of the pictures it will see.
    Raises:
        SettingError: no such file, no TorchScript module, or one that makes no features of such pictures; or through
            which no gradient passes.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise SettingError(
            f"reconstruction.perceptual: {path} does not exist: give the path of a TorchScript module, or leave it out"
        )
    try:
        module = torch.jit.load(str(place), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"reconstruction.perceptual: {path} is no TorchScript module; "
            "torch.jit.save(torch.jit.trace(net, x), path) writes one"
        ) from error
    for parameter in module.parameters():
        parameter.requires_grad_(False)

    def features(pictures: Tensor) -> list[Tensor]:
        found = module(pictures)
        return list(found) if isinstance(found, (list, tuple)) else [found]

    _try(features, path, shape, device)
    return Perceptual(features, hashlib.sha256(place.read_bytes()).hexdigest())


def _try(features: Features, path: str, shape: tuple[int, int, int], device: torch.device) -> None:
    """Refuse an extractor that does not work, before anything is trained."""
    said = f"reconstruction.perceptual: {path}"
    probe = torch.zeros(2, *shape, device=device, requires_grad=True)
    try:
        found = features(probe)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SettingError(f"{said} cannot see pictures of shape {shape}: {reason}") from error
    for one in found:
        if not isinstance(one, Tensor) or one.ndim < 2 or len(one) != 2 or not one.is_floating_point():
            seen = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
            raise SettingError(f"{said} makes {seen} of 2 pictures where features of shape (2, channels, ...) belong")
        if not one.requires_grad:
            raise SettingError(f"{said} lets no gradient through: trace it outside torch.no_grad()")
