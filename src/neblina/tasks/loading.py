"""A model opened, whatever it is kept in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from neblina.bundle.components import Opening
from neblina.bundle.opening import open_bundle
from neblina.bundle.sources import DEFAULT
from neblina.core.devices import pick_device
from neblina.core.errors import choose
from neblina.core.memory import within_memory
from neblina.tasks.model import Model

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@within_memory()
def load(
    model: str | Path = DEFAULT,
    *,
    device: str | None = None,
    dtype: str = "fp32",
    revision: str | None = None,
    variant: str | None = None,
    prediction: str | None = None,
    ema: bool = False,
    tokenizer: str | Path | None = None,
    vae: str | Path | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
) -> Model:
    """Open a model: a folder, ours or one that diffusers wrote, a single file, or a hub id, which is downloaded.

    Args:
        model: where it is, or its name; the small text-to-image model of this package when left out.
        device: "cpu", "cuda", …; None for a GPU if there is one.
        dtype: fp32, bf16 or fp16: of the networks' weights and arithmetic. Posteriors stay float32.
        revision: branch, tag or commit of a hub id.
        variant: of the weight files, such as fp16.
        prediction, ema, tokenizer, vae: as in `bundle.opening.open_bundle`.
        loras: LoRA files and how much of each is added to the weights.
    Raises:
        CheckpointError: a file is missing, cut short, or does not fit.
        SettingError: an unknown dtype, device or configuration field.
    """
    opening = Opening(variant, _DTYPES[choose("dtype", dtype, _DTYPES)], pick_device(device))
    bundle = open_bundle(
        model, opening, revision=revision, prediction=prediction, ema=ema, tokenizer=tokenizer, vae=vae
    )
    opened = Model(bundle, torch.device(opening.device))
    if loras:
        opened.add_loras(loras)
    return opened
