"""`neblina generate`: pictures from a model."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from neblina.cli.progress import bar, console
from neblina.core.errors import SettingError


def generate(
    model: Path,
    /,
    *,
    label: list[str] | None = None,
    number: Annotated[int | None, Parameter(name=("-n", "--number"))] = None,
    steps: int | None = None,
    sampler: str | None = None,
    grid: str | None = None,
    guidance: float | None = None,
    omega: float | None = None,
    unconditional: Path | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_rescale: float = 0.0,
    threshold: float | None = None,
    autoguidance: Path | None = None,
    classifier: Path | None = None,
    classifier_scale: float | None = None,
    eta: float | None = None,
    tolerance: float | None = None,
    setting: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    schedule: str | None = None,
    start: Path | None = None,
    t_start: float = 1.0,
    t_end: float = 0.0,
    seed: int = 0,
    offset: int = 0,
    batch: int = 64,
    out: Path = Path("generated"),
    device: str | None = None,
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
) -> None:
    """Make pictures with a trained model, and a sheet of all of them.

    Parameters
    ----------
    model
        A model folder.
    label
        Class by number or name; may be given several times.
    number
        How many pictures; one a label when left out.
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
    setting
        Any other setting of the sampler, as name=number; may be given several times.
    schedule
        Sample on this noise schedule in place of the one the model was trained on.
    start
        A picture, or a folder of them, to start from in place of noise.
    t_start
        How much noise it is given: 1 leaves nothing of it, 0.5 its composition.
    t_end
        Where to stop, 0 is clean.
    seed
        Any integer; the same seed makes the same pictures.
    offset
        Number of the first picture under the seed.
    batch
        Most pictures in one network call.
    out
        Folder for the pictures.
    device
        cpu, cuda, …; the best there is when left out.
    dtype
        Of the network's arithmetic.
    """
    from neblina.data.pictures import to_float, to_uint8
    from neblina.data.sheets import save_sheet, to_image
    from neblina.data.sources import open_pictures
    from neblina.samplers.drive import Step
    from neblina.tasks.classifier import load_classifier
    from neblina.tasks.model import load

    opened = load(model, device=device, dtype=dtype)
    settings = _settings(setting or [], eta=eta, tolerance=tolerance)
    begin = None
    if start is not None:
        given, _ = open_pictures(str(start), resolution=opened.shape[1], channels=opened.shape[0])
        begin = to_float(given.read(range(len(given))))
        number = len(begin) if number is None and len(begin) > 1 else number
    with bar("generating") as progress:
        task = progress.task_ids[0]
        count = number if number is not None else len(label or [0])
        each = opened.evaluations(
            sampler=sampler,
            steps=steps,
            grid=grid,
            schedule=schedule,
            t_start=t_start,
            t_end=t_end,
            settings=settings,
        )
        progress.update(task, total=None if each is None else count * each)

        def on_step(step: Step) -> None:
            progress.update(task, advance=len(step.query.x), words=f"t = {float(step.query.t.max()):.3f}")

        began = time.perf_counter()
        pictures = to_uint8(
            opened.generate(
                labels=label,
                n=number,
                steps=steps,
                sampler=sampler,
                grid=grid,
                guidance=guidance,
                omega=omega,
                unconditional=None if unconditional is None else load(unconditional, device=device, dtype=dtype),
                guidance_interval=guidance_interval,
                guidance_rescale=guidance_rescale,
                threshold=threshold,
                autoguidance=None if autoguidance is None else load(autoguidance, device=device, dtype=dtype),
                classifier=None if classifier is None else load_classifier(classifier, device=device),
                classifier_scale=classifier_scale,
                seed=seed,
                offset=offset,
                batch=batch,
                settings=settings,
                schedule=schedule,
                start=begin,
                t_start=t_start,
                t_end=t_end,
                on_step=on_step,
            )
        )
        seconds = time.perf_counter() - began
        progress.update(task, words="")
    out.mkdir(parents=True, exist_ok=True)
    for place, picture in enumerate(pictures):
        to_image(picture).save(out / f"{seed}-{offset + place:05d}.png")
    sheet = out / "sheet.png"
    save_sheet(pictures, sheet, columns=min(len(pictures), len(label) if label and len(label) > 1 else 8))
    speed = len(pictures) / seconds
    console.print(f"generated {len(pictures)} pictures in {seconds:.1f} s ({speed:.1f} images/s)    {sheet}")


def _settings(given: list[str], **named: float | None) -> dict[str, Any]:
    """Settings of the sampler, as name=number and by options of their own.

    Raises:
        SettingError: something that is not name=number.
    """
    settings: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
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
