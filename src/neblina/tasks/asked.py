"""From what a user says (prompts, labels, how many) to the conditions of the pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from neblina.bundle.bundle import Bundle
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import SettingError, choose
from neblina.data.captions import words_of
from neblina.encoders.weights import parse_weights
from neblina.tasks.sampling import other_classes
from neblina.tasks.settings import LeftOut, Noticed, Settings

Labels = int | str | Sequence[int | str]


def conditions_of(
    bundle: Bundle,
    prompt: str | Sequence[str] | None,
    labels: Labels | None,
    settings: Settings,
    *,
    size: tuple[int, int],
    count: int,
) -> Condition:
    """The condition of each of `count` pictures; prompts and labels go in turn from picture 0 of the seed.

    Args:
        size: (height, width) of the pictures in pixels.
    Raises:
        SettingError: a prompt for a model that reads none or no prompt for one that does, an unknown label.
    """
    if bundle.text is None:
        if prompt is not None:
            raise SettingError(f"this model reads no text, so the prompt {_quoted(prompt)} has no effect: leave it out")
        if settings.negative is not None:
            raise SettingError("this model reads no text: leave the negative prompt out")
        if settings.clip_skip is not None:
            raise SettingError(
                "clip_skip leaves out layers of a text encoder, and this model reads no text: leave it out"
            )
        if settings.long_prompt != Settings.long_prompt:
            raise SettingError(
                f"long_prompt {settings.long_prompt!r} is about prompts, and this model reads no text: leave it out"
            )
        classes = _classes(bundle, labels, settings)
        if classes is None:
            return Condition()
        return Condition(torch.tensor([classes[(settings.offset + k) % len(classes)] for k in range(count)]))
    if labels is not None:
        raise SettingError("this model is conditioned on text, not on labels: give a prompt")
    prompts = [""] if prompt is None else _listed(prompt)
    if settings.negative is not None and settings.weight(bundle.sampling.guidance) == 1:
        raise SettingError("a negative prompt is what guidance goes away from, and guidance is 1; set it above 1")
    other = next((name for name in ("unconditional", "autoguidance") if getattr(settings, name) is not None), None)
    if settings.negative is not None and other is not None:
        raise SettingError(
            f"a negative prompt is what guidance goes away from, and with {other} it goes away from that model: "
            "leave one of the two out"
        )
    for name, encoder in bundle.text.encoders.items():
        if encoder.mismatch is not None:
            warnings.warn(Noticed(f"the {name} {encoder.mismatch}, and prompts say something else"), stacklevel=2)
    for sentence in strange_words(bundle, prompts):
        warnings.warn(Noticed(sentence), stacklevel=2)
    encoded = bundle.text.encode(
        prompts,
        settings.negative,
        size=size,
        long=settings.long_prompt,
        clip_skip=settings.clip_skip,
    )
    return encoded.take(torch.tensor([(settings.offset + k) % len(prompts) for k in range(count)]))


def strange_words(bundle: Bundle, prompts: Sequence[str]) -> list[str]:
    """A sentence for each prompt with words that no caption of the model's training had, where its card says them."""
    known = frozenset(bundle.card.get("words") or ())
    sentences = []
    for prompt in dict.fromkeys(prompts) if known else ():
        words = words_of(parse_weights(prompt).text)
        strange = list(dict.fromkeys(word for word in words if word not in known))
        if strange and len(strange) == len(set(words)):
            sentences.append(
                f"this model knows none of the words of {prompt!r}: it was trained on captions without them"
            )
        elif strange:
            sentences.append(f"this model never read {', '.join(strange)}: its captions did not have it")
    return sentences


_TOLD = {"mask": "a mask", "low resolution": "the small picture that it enlarges", "depth": "the depth of a picture"}
_TELLS = {"inpaint": "mask", "upscale": "low resolution", "edit": "depth"}  # what a verb has to tell


def refuse_untold(bundle: Bundle, verb: str) -> None:
    """Refuse a verb that cannot tell a model what it was trained to be told.

    Raises:
        SettingError: with the verb that can.
    """
    joined = bundle.pipeline.joined
    if joined is None or _TELLS.get(verb) == joined:
        return
    able = next((f"use {each}" for each, told in _TELLS.items() if told == joined), "no verb here tells it that")
    raise SettingError(f"this model is told {_TOLD[joined]}, which {verb} has not: {able}, or take another model")


def how_many(settings: Settings, *given: object) -> int:
    """How many pictures: as many as are asked for, else one for each of the longest list that is given.

    What of a list is left out because fewer are asked for is said in a warning (`LeftOut`).
    """
    longest = max([1, *(len(value) for value in given if isinstance(value, Sequence) and not isinstance(value, str))])
    if settings.n is None:
        return longest
    if settings.n < longest and not settings.offset:  # from another number on, a list is gone on with
        warnings.warn(
            LeftOut(
                f"{longest} prompts or labels are given and n is {settings.n}: the last {longest - settings.n} of them "
                "are left out; leave n out for a picture of each"
            ),
            stacklevel=3,
        )
    return settings.n


def _listed(prompt: str | Sequence[str]) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise SettingError("the list of prompts is empty; leave it out to sample without")
    return prompts


def _quoted(prompt: str | Sequence[str]) -> str:
    return repr(prompt if isinstance(prompt, str) else prompt[0] if prompt else "")


def _classes(bundle: Bundle, labels: Labels | None, settings: Settings) -> list[int] | None:
    names = bundle.label_names
    if settings.classifier is not None:
        known = settings.classifier.bundle.label_names
        if names and names != known:
            raise SettingError(other_classes("classifier", known, names))
        names = known
    if labels is None:
        return [NULL_LABEL] if names else None
    if not names:
        raise SettingError("this model is unconditional: it takes no labels")
    given = [labels] if isinstance(labels, int | str) else list(labels)
    if not given:
        raise SettingError("labels is empty; leave it out to sample without")
    return [_label(label, names) for label in given]


def _label(label: int | str, names: Sequence[str]) -> int:
    if isinstance(label, str) and label not in names and label.lstrip("-").isdigit():
        label = int(label)
    if isinstance(label, str):
        number = names.index(choose("label of this model", label, names))
        if names.count(label) > 1:
            numbers = " and ".join(str(place) for place, name in enumerate(names) if name == label)
            raise SettingError(f"{label!r} is the name of the labels {numbers}: say which by its number")
        return number
    if not 0 <= label < len(names):
        raise SettingError(f"label {label} is out of range: this model knows 0 … {len(names) - 1}")
    return label
