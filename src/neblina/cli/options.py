"""What the commands that make pictures have in common: how a model is opened, how is sampled, where pictures go."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from neblina.cli.numbers import Whole, WholeOrNone, whole
from neblina.core.errors import DataError, SettingError

Labels = Annotated[list[str] | None, Parameter(negative=())]


@Parameter(name="*", group=Group("The model", sort_key=3))
@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a model is opened.

    Parameters
    ----------
    dtype
        Of the networks' weights and arithmetic.
    revision
        Branch, tag or commit of a model on the hub.
    variant
        Of the weight files, such as fp16.
    tokenizer
        For a single file, which holds none: a tokenizer's folder, or CLIP's published merges.
    vae
        An autoencoder in place of the model's own: a folder, a file, or an id on the hub, also with its revision:
        owner/name@revision.
    prediction
        What a single file's network predicts, where it does not say.
    ema
        Take a training checkpoint's averaged weights.
    lora
        A LoRA file, with how much of it: film.safetensors:0.8; may be given several times.
    """

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    revision: str | None = None
    variant: str | None = None
    tokenizer: Path | None = None
    vae: str | None = None
    prediction: Literal["eps", "v", "x0"] | None = None
    ema: Annotated[bool, Parameter(negative=())] = False
    lora: Annotated[list[str] | None, Parameter(negative=())] = None


@Parameter(name="*", group=Group("Sampling", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are sampled.

    Parameters
    ----------
    number
        How many pictures.
    steps
        Sampling steps.
    sampler
        How to walk: ddim, ddpm, heun, dpmpp_2m, …
    grid
        Which times to visit: log_snr, uniform, karras, …
    guidance
        Weight w of classifier-free guidance; 1 is none.
    omega
        The same as the papers write it: w = 1 + omega.
    negative
        What guidance goes away from.
    unconditional
        Folder of a separately trained unconditional model to guide away from.
    guidance_interval
        Lowest and highest noise level σ/α at which to guide, such as 0.3 3.
    guidance_rescale
        Share, 0 to 1, of the spread that guidance adds and that is taken back.
    threshold
        Dynamic thresholding: share of a picture's pixels left as they are, such as 0.995.
    autoguidance
        Folder of a weaker model of the same pictures to guide away from.
    classifier
        Folder of a classifier of noisy pictures to guide by.
    classifier_scale
        Its weight; 1 when left out.
    eta
        Noise on the way, for ddim: 0 none, 1 as much as ddpm.
    tolerance
        Error that an adaptive sampler keeps to in place of a number of steps: 0.02 is quick, 0.001 accurate.
    truncation
        Share of the probability that tokens are drawn from, of a model of tokens; 1 is all of it.
    top_classes
        Most classes that a token is drawn from; 0 for any number.
    setting
        Any other setting of the sampler, as name=number; may be given several times.
    schedule
        Sample on this noise schedule in place of the one the model was trained on.
    long_prompt
        A prompt longer than the text encoder reads: refuse it, encode it in chunks, or cut it and say what is lost.
    clip_skip
        Layers at the text encoder's end that are left out.
    seed
        Any integer; the same seed makes the same pictures.
    offset
        Number of the first picture under the seed.
    batch
        Pictures that are made together.
    max_batch
        Most samples in one network call, places of a scene and windows counted each; as free memory allows when left
        out.
    """

    number: Annotated[int | None, Parameter(name=("-n", "--number"), converter=whole)] = None
    steps: WholeOrNone = None
    sampler: str | None = None
    grid: str | None = None
    guidance: float | None = None
    omega: float | None = None
    negative: str | None = None
    unconditional: Path | None = None
    guidance_interval: Annotated[tuple[float, float] | None, Parameter(negative=())] = None
    guidance_rescale: float = 0.0
    threshold: float | None = None
    autoguidance: Path | None = None
    classifier: Path | None = None
    classifier_scale: float | None = None
    eta: float | None = None
    tolerance: float | None = None
    truncation: float | None = None
    top_classes: Whole = 0
    setting: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None
    schedule: str | None = None
    long_prompt: Literal["refuse", "chunk", "cut"] = "refuse"
    clip_skip: WholeOrNone = None
    seed: Whole = 0
    offset: Whole = 0
    batch: WholeOrNone = None
    max_batch: WholeOrNone = None


@Parameter(name="*", group=Group("Output", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where pictures go, and what is seen on the way.

    Parameters
    ----------
    out
        Folder for the pictures; none there is written over.
    preview
        Save what the first picture is believed to become as preview.png, every so many steps; 0 for never.
    animation
        Save how the first picture came out of the noise as animation.gif.
    device
        cpu, cuda, …; the best there is when left out.
    """

    out: Path = Path("generated")
    preview: Whole = 0
    animation: Annotated[bool, Parameter(negative=())] = False
    device: str | None = None


def arguments_of(*options: Opening | Sampling) -> dict[str, Any]:
    """The options that differ from their defaults, as an order's arguments.

    Raises:
        SettingError: a setting that is not name=number, or a LoRA whose amount is no number.
    """
    given: dict[str, Any] = {}
    for group in options:
        for each in fields(group):
            value = getattr(group, each.name)
            if value != each.default:
                given[each.name] = str(value) if isinstance(value, Path) else value
    if "number" in given:
        given["n"] = given.pop("number")
    if "guidance_interval" in given:
        given["guidance_interval"] = list(given["guidance_interval"])
    if "lora" in given:
        given["loras"] = [_lora(words) for words in given.pop("lora")]
    named: dict[str, Any] = {name: given.pop(name) for name in ("eta", "tolerance") if name in given}
    settings = _settings(given.pop("setting", []), named)
    return {**given, "settings": settings} if settings else given


def prompts_of(file: Path, prompt: str | None) -> list[str]:
    """The lines of a text file that say something.

    Raises:
        SettingError: a prompt beside it, or no prompt in it.
        DataError: no text file.
    """
    if prompt is not None:
        raise SettingError(f"the prompt {prompt!r} and --prompts {file} say the same thing; give one")
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a text file with a prompt a line: {error}") from error
    if not any(lines):
        raise SettingError(f"{file} holds no prompt; write one a line")
    return [line for line in lines if line]


def colours_of(words: str) -> int | list[str]:
    """How many random colours, or the names of some between commas."""
    return int(words) if words.strip().isdecimal() else [name.strip() for name in words.split(",")]


def _lora(words: str) -> list[Any]:
    place, separator, amount = words.rpartition(":")
    if not separator or (Path(words).exists() and not Path(place).exists()):
        return [words, 1.0]
    number = _number(amount)
    if number is None:
        raise SettingError(f"--lora {words} is not a file with an amount, such as film.safetensors:0.8")
    return [place, float(number)]


def _settings(given: list[str], named: dict[str, Any]) -> dict[str, Any]:
    """Settings of the sampler, as name=number and by options of their own."""
    settings = dict(named)
    for words in given:
        name, _, value = words.partition("=")
        name, number = name.replace("-", "_"), _number(value)
        if number is None:
            raise SettingError(f"--set {words} is not name=number, such as --set churn=20")
        if name in settings:
            raise SettingError(f"{name} is given twice")
        settings[name] = number
    return settings


def _number(words: str) -> bool | int | float | None:
    """true, false, a whole number or another one; None for anything else."""
    if words in ("true", "false"):
        return words == "true"
    for kind in (int, float):
        try:
            return kind(words)
        except ValueError:
            continue
    return None
