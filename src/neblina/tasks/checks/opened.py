"""A model that opens, looked at as a whole: weights, autoencoder, text encoders, what its network predicts."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from neblina.bundle.bundle import Bundle
from neblina.core.conditions import Condition
from neblina.core.errors import DivergenceError, SettingError
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.encoders.text import TextEncoder
from neblina.nets.dit import DiT
from neblina.nets.text_dit import TextDiT
from neblina.tasks.checks.findings import NOTE, OK, PROBLEM, Finding
from neblina.tasks.checks.latents import LARGEST, Coding, measure
from neblina.tasks.checks.prediction import KINDS, Verdict, judge
from neblina.tasks.checks.published import unusual_fields, unusual_schedule
from neblina.tasks.model import Model
from neblina.tasks.sizes import check_own

_SIDE = 32  # cells a side that a network is asked about: what it predicts does not depend on the size
_SHOWN = 4096  # numbers in a batch, at the least
_OFF = 3.0  # how far from 1 the standard deviation of latents may be: published ones, on these pictures, are within 1.7


def look_at_model(model: Model) -> list[Finding]:
    """Everything that can be said of a model that was opened."""
    bundle = model.bundle
    found = [one for name, net in bundle.modules.items() for one in _weights(name, net)]
    coding: Coding | None = None
    if bundle.pipeline.codec is not None and bundle.own_codec is not None:
        try:
            coding = measure(bundle.own_codec, device=model.device)
        except DivergenceError as error:
            found.append(Finding(PROBLEM, _codec_name(bundle), str(error)))
    try:
        verdict = predicted(model)
    except (DivergenceError, SettingError) as error:
        found.append(Finding(PROBLEM, bundle.pipeline.network, str(error)))
        verdict = None
    found += _prediction(bundle, verdict)
    vouched = verdict is not None and verdict.kind == bundle.parameterisation
    found += _unusual(bundle, vouched, coding is not None and coding.trained)
    if coding is not None:
        found += _codec(bundle, coding)
    if bundle.text is not None:
        for name, encoder in bundle.text.encoders.items():
            found += _text(name, encoder)
    return [*found, *_uses(bundle)]


def predicted(model: Model) -> Verdict | None:
    """What the network predicts; None where its answers cannot be compared with those of others (edm, score).

    Raises:
        DivergenceError: an answer that is not finite.
    """
    bundle = model.bundle
    if bundle.parameterisation not in (*KINDS, "flow"):
        return None
    kinds = KINDS if bundle.parameterisation in KINDS else ("eps", "x0", "flow")
    channels, height, width = bundle.latent_shape if bundle.net.config.sample_size else (bundle.channels, _SIDE, _SIDE)
    if not isinstance(bundle.net, DiT | TextDiT):
        multiple = bundle.net.config.multiple
        height, width = (max(multiple, min(side, _SIDE) // multiple * multiple) for side in (height, width))
    count = max(2, min(16, -(-_SHOWN // (channels * height * width))))
    like = torch.zeros(count, channels, height, width, device=model.device)
    denoiser = bundle.denoiser()
    condition = _condition(model, denoiser, like)
    verdict = judge(denoiser, like, condition, kinds=kinds)
    if not all(value == value for reading in verdict.readings.values() for value in reading.excess):
        raise DivergenceError("the network answers values that are not finite: open it in float32 or bfloat16")
    return verdict


def _condition(model: Model, denoiser: NetworkDenoiser, like: Tensor) -> Condition:
    """What says least: the empty text, the null label or the first, a map of zeros (all of it to be painted)."""
    bundle, count = model.bundle, len(like)
    condition = Condition()
    if bundle.text is not None:
        factor = bundle.codec.factor
        size = (like.shape[2] * factor, like.shape[3] * factor)
        condition = replace(
            bundle.text.encode([""], size=size).take(torch.zeros(count, dtype=torch.int64)), unsaid=None
        )
    if denoiser.num_classes:
        condition = replace(condition, labels=torch.full((count,), 0 if bundle.null_label is None else -1))
    if bundle.joined:
        maps = torch.zeros(count, bundle.joined, *like.shape[2:], device=like.device)
        if bundle.pipeline.joined == "mask":
            maps[:, 0] = 1
        condition = replace(condition, spatial=maps)
    return condition


def _weights(name: str, net: nn.Module) -> Iterator[Finding]:
    """Matrices in which nothing was ever written, or everything was lost."""
    matrices = [(key, value) for key, value in net.named_parameters() if value.ndim > 1 and value.numel() > 1]
    flat = [key for key, value in matrices if bool((value == value.flatten()[0]).all())]
    count = sum(parameter.numel() for parameter in net.parameters())
    stored = ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in net.parameters()}))
    if flat:
        more = f" and {len(flat) - 1} more" if len(flat) > 1 else ""
        yield Finding(PROBLEM, name, f"{flat[0]}{more} hold one value throughout: never trained, or lost")
    else:
        yield Finding(OK, name, f"{count:,} parameters, {stored}, all of them finite and none of the matrices constant")


def _prediction(bundle: Bundle, verdict: Verdict | None) -> Iterator[Finding]:
    claimed, part = bundle.parameterisation, bundle.pipeline.network
    if verdict is None:
        yield Finding(NOTE, part, f"said to predict {claimed}; it cannot be told from the others by asking")
    elif verdict.kind == claimed:
        yield Finding(OK, part, f"predicts {claimed}, as it is said to")
    elif verdict.kind is not None:
        yield Finding(
            PROBLEM,
            part,
            f"it predicts {verdict.kind}, by its answers to noise, and is said to predict {claimed} (the scheduler's "
            "prediction_type); or its own configuration is another network's",
        )
    elif verdict.trained:
        yield Finding(NOTE, part, f"said to predict {claimed}; its answers to noise do not tell for certain")
    else:
        yield Finding(
            NOTE, part, f"said to predict {claimed}; it answers noise as no trained network does, so it cannot be told"
        )


def _unusual(bundle: Bundle, vouched: bool, coded: bool) -> Iterator[Finding]:
    """Values that no published model has: a problem unless the network answers as it should in spite of them."""
    doubt = "and the network does not answer as a trained one: one of the two is wrong"
    schedule = (
        None
        if "version" in bundle.card or not _foreign(bundle)
        else unusual_schedule(bundle.pipeline.name, bundle.schedule)
    )
    if schedule is not None:
        yield Finding(NOTE, "scheduler", schedule) if vouched else Finding(PROBLEM, "scheduler", f"{schedule}, {doubt}")
    trained = {bundle.pipeline.network: vouched, bundle.pipeline.codec or "": coded}
    for name, net in bundle.modules.items():
        encoder = None if bundle.text is None else bundle.text.encoders.get(name)
        config = encoder.config if encoder is not None else net.config.to_dict()  # type: ignore[union-attr, operator]
        for said in unusual_fields(config) if _foreign(bundle) else ():
            fine = trained.get(name, vouched)
            yield Finding(NOTE, name, said) if fine else Finding(PROBLEM, name, f"{said}, {doubt}")


def _foreign(bundle: Bundle) -> bool:
    """Whether it is read from another library's files: what this package trained may be of any shape."""
    return bundle.sampling.scheduler is not None


def _codec(bundle: Bundle, coding: Coding) -> Iterator[Finding]:
    name = _codec_name(bundle)
    config = bundle.modules[name].config.to_dict()  # type: ignore[union-attr, operator]
    if not coding.trained:
        yield Finding(
            NOTE,
            name,
            f"does not give pictures back (correlation {coding.returned:.2f}): never trained, or not of these weights",
        )
    elif coding.scaled and not 1 / _OFF < coding.std < _OFF:
        scaling = config["scaling_factor"]
        yield Finding(
            PROBLEM,
            name,
            f"its latents have a standard deviation of {coding.std:.3g} where models diffuse 1: scaling_factor is "
            f"{scaling:g}, and about {scaling / coding.std:.3g} would fit",
        )
    else:
        yield Finding(
            OK,
            name,
            f"gives pictures back (correlation {coding.returned:.2f}), latents of standard deviation {coding.std:.2g}",
        )
    if coding.largest > LARGEST:
        half = next(bundle.modules[name].parameters()).dtype == torch.float16 and not config.get("force_upcast", False)
        said = f"reaches {coding.largest:.3g} inside, beyond float16's {LARGEST:g}: decode in float32 or bfloat16"
        kept = " (force_upcast in its configuration sees to that)" if config.get("force_upcast") else ""
        yield Finding(PROBLEM if half else NOTE, name, said + kept)


def _text(name: str, encoder: TextEncoder) -> Iterator[Finding]:
    tokenizer, rows = encoder.tokenizer, encoder.rows
    end = encoder.config.get("eos_token_id")
    if encoder.mismatch is not None:
        yield Finding(PROBLEM, name, encoder.mismatch)
        return
    if tokenizer.size < rows:
        spare = f"has vectors for {rows:,} tokens and its tokenizer knows {tokenizer.size:,}"
        yield Finding(NOTE, name, f"{spare}: the table was padded, or words were added whose names are lost")
    if "eos_token_id" in encoder.config and end not in (0, 1, 2, tokenizer.end):
        yield Finding(PROBLEM, name, f"ends a text with token {end} (eos_token_id), its tokenizer with {tokenizer.end}")
    else:
        yield Finding(
            OK, name, f"{encoder.layers} layers, {encoder.width} wide, reads {encoder.window} tokens of {rows:,}"
        )


def _uses(bundle: Bundle) -> Iterator[Finding]:
    for name, kept in bundle.kept.items():
        if kept.folder is not None:
            yield Finding(NOTE, name, "not used here; carried along when the model is saved")
    if bundle.net.config.sample_size is None:
        yield Finding(NOTE, bundle.pipeline.network, "does not say its sample_size: say which size to make")
        return
    try:
        check_own(bundle)
    except SettingError as error:
        yield Finding(PROBLEM, bundle.pipeline.network, str(error))


def _codec_name(bundle: Bundle) -> str:
    return bundle.pipeline.codec or "vae"
