"""What a model is and what is wrong with it, before anything is sampled."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from neblina.bundle.components import Opening, kinds
from neblina.bundle.files import read_json
from neblina.bundle.opening import open_codec
from neblina.bundle.single_file.families import FAMILIES
from neblina.bundle.single_file.read import read_single_file
from neblina.bundle.sources import resolve
from neblina.core.errors import NeblinaError
from neblina.tasks.checks.findings import NOTE, OK, PROBLEM, Finding, Report
from neblina.tasks.checks.latents import measure
from neblina.tasks.checks.opened import look_at_model
from neblina.tasks.checks.parts import is_component, look_at_part, look_at_parts
from neblina.tasks.loading import load
from neblina.tasks.model import Model
from neblina.tasks.token_making import asks_for_tokens
from neblina.tasks.token_model import load_tokens


def check(
    model: str | Path,
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
) -> Report:
    """Look at a model, one of its parts, or a single file; whatever is wrong is a finding, not an error.

    Args:
        model, device, dtype, revision, variant, prediction, ema, tokenizer, vae, loras: as in `tasks.loading.load`.
    Raises:
        SettingError: an unknown dtype or device.
    """
    subject = str(model)
    try:
        place = resolve(model, revision=revision, variant=variant)
    except NeblinaError as error:
        return Report(subject, {}, [Finding(PROBLEM, "model", str(error))])
    if place.is_dir() and is_component(place):
        return _part(subject, place, Opening(variant))
    if place.is_dir() and asks_for_tokens(str(place)):
        return _tokens(subject, place, Opening(variant), device)
    given = {"prediction": prediction, "ema": ema, "tokenizer": tokenizer, "vae": vae, "loras": loras}
    facts, found = _of_file(place) if place.is_file() else ({}, [])
    if facts.get("family") in ("an autoencoder alone", "TAESD"):
        return Report(subject, facts, [*found, *_codec_file(place)])
    try:
        opened = load(place, device=device, dtype=dtype, variant=variant, **given)  # type: ignore[arg-type]
    except NeblinaError as error:
        said = [] if place.is_file() or not place.is_dir() else look_at_parts(place, Opening(variant))
        if not any(str(error) == finding.says for finding in [*found, *said]):
            said.append(Finding(PROBLEM, "model", str(error)))
        return Report(subject, facts, [*found, *said])
    return Report(subject, {**facts, **facts_of(opened)}, [*found, *look_at_model(opened)])


def _tokens(subject: str, place: Path, opening: Opening, device: str | None) -> Report:
    """A model of tokens: its parts, and whether they go together."""
    found = look_at_parts(place, opening)
    try:
        opened = load_tokens(place, device=device, variant=opening.variant)
    except NeblinaError as error:
        if not any(str(error) == finding.says for finding in found):
            found.append(Finding(PROBLEM, "model", str(error)))
        return Report(subject, {}, found)
    return Report(subject, opened.describe(), found)


def facts_of(model: Model) -> dict[str, Any]:
    """What a model is."""
    bundle = model.bundle
    joined = {"mask": "a mask and a picture", None: None}
    reads = [
        "text" if bundle.text is not None else None,
        f"{len(bundle.label_names)} labels" if bundle.label_names else None,
        joined.get(bundle.pipeline.joined, f"a {bundle.pipeline.joined} map"),
    ]
    size = bundle.net.config.sample_size
    return {
        "kind": bundle.pipeline.name,
        "parts": {name: type(net).__name__ for name, net in bundle.modules.items()},
        "parameters": sum(value.numel() for net in bundle.modules.values() for value in net.parameters()),
        "dtype": str(next(bundle.net.parameters()).dtype).removeprefix("torch."),
        "reads": [each for each in reads if each],
        "pictures": None if size is None else "x".join(map(str, model.shape)),
        "predicts": bundle.parameterisation,
        "schedule": bundle.schedule.name,
        "sampler": f"{bundle.sampling.sampler}, {bundle.sampling.steps} steps",
        "guidance": bundle.sampling.guidance,
    }


def _of_file(place: Path) -> tuple[dict[str, Any], list[Finding]]:
    """What a single file says of itself."""
    try:
        single = read_single_file(place)
    except NeblinaError as error:
        return {}, [Finding(PROBLEM, "file", str(error))]
    found = [Finding(NOTE, "file", said) for said in single.assumed]
    if single.lacks:
        found.append(Finding(NOTE, "file", f"such a file does not hold: {', '.join(single.lacks)}"))
    if single.ignored:
        found.append(Finding(NOTE, "file", f"not used: {', '.join(single.ignored)}"))
    return {"family": FAMILIES[single.family].title}, found


def _codec_file(place: Path) -> list[Finding]:
    try:
        coding = measure(open_codec(place, Opening()))
    except NeblinaError as error:
        return [Finding(PROBLEM, "vae", str(error))]
    return [
        Finding(
            OK if coding.trained else NOTE, "vae", f"gives pictures back with a correlation of {coding.returned:.2f}"
        )
    ]


def _part(subject: str, place: Path, opening: Opening) -> Report:
    """One part of a model alone."""
    place = place if place.name not in ("", "..") else place.resolve()  # what a part is, its name says too
    found = look_at_part(place.parent, place.name, replace(opening, dtype=torch.float32))
    facts: dict[str, Any] = {}
    if (place / "config.json").exists() and not any(finding.level == PROBLEM for finding in found):
        name = read_json(place / "config.json").get("_class_name")
        facts = {"kind": name}
        if name in list(kinds) and kinds[str(name)].codec is not None:
            found += _codec_file(place)
    return Report(subject, facts, found)
