"""One walk through a model, whatever was asked for: resolved before it begins, made in batches, decoded at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.schedulers import route
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.core.windows import Cover
from neblina.guidance.bootstrap import Backdrop, until_share
from neblina.guidance.settings import Composition, GuidanceSettings, Place
from neblina.processes.foreign import ForeignGrid, Walk, make_walk
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import truncate
from neblina.processes.schedules import Schedule, make_schedule
from neblina.samplers import samplers
from neblina.samplers.generate import Stretch, generate
from neblina.tasks.settings import Settings


@dataclass(frozen=True)
class Route:
    """How a request walks, with every default filled in.

    Attributes:
        sampler: a registered name.
        steps: from noise to data.
        grid: a registered name or another library's, None for the sampler's own.
        settings: of the sampler.
        schedule: that is sampled on.
        other_schedule: the same if it is not the one that the network was trained on, else None.
    """

    sampler: str
    steps: int
    grid: str | ForeignGrid | None
    settings: dict[str, Any]
    schedule: Schedule
    other_schedule: Schedule | None

    @property
    def walk(self) -> Walk:
        """The times that are visited, from noise to data."""
        return make_walk(self.grid or samplers[self.sampler].grid, self.schedule, self.steps)

    def evaluations(self, t_start: float = 1.0, t_end: float = 0.0) -> int | None:
        """How many answers a picture takes; None for an adaptive sampler."""
        times = truncate(self.walk.times, t_start, t_end)
        return samplers[self.sampler].evaluations(GaussianProcess(self.schedule), times, **self.settings)

    def time_of(self, strength: float) -> float:
        """The time at which a picture that is to be changed by `strength` in (0, 1] begins.

        On a grid that another library tuned it is the place from which that share of the steps, rounded down, is left
        to be walked, as there; elsewhere the strength is the time itself, whatever the grid.

        Raises:
            SettingError: a strength outside (0, 1], or one that leaves no step.
        """
        if not 0 < strength <= 1:
            raise SettingError(f"strength is above 0 and at most 1, not {strength:g}")
        if self.grid is None or isinstance(self.grid, str):
            return strength
        taken = int(self.steps * strength)
        if taken < 1:
            raise SettingError(
                f"strength {strength:g} of {self.steps} steps leaves none to walk: take more steps or more strength"
            )
        return 1.0 if taken == self.steps else float(self.walk.times[self.steps - taken])


_EVEN = 50
_TENSORS = {"known", "mask"}  # of samplers with a way of their own around what is known: not a user's settings


def route_of(bundle: Bundle, settings: Settings) -> Route:
    """How a request walks through a model.

    Raises:
        SettingError: an unknown name, steps for a sampler that chooses its own, or tensors for settings of one.
    """
    default = bundle.sampling
    if settings.truncation is not None or settings.top_classes:
        raise SettingError("truncation and top_classes are about tokens, and this model makes none: leave them out")
    sampler = settings.sampler or default.sampler
    if settings.steps is not None and samplers[sampler].adaptive:
        raise SettingError(f"{sampler} chooses its own steps; give it a tolerance in place of steps")
    for name in sorted(_TENSORS & settings.settings.keys() & set(samplers[sampler].choices)):
        raise SettingError(
            f"{name} of {sampler} is what inpaint and outpaint tell it: leave it out and use one of them"
        )
    steps = default.steps if settings.steps is None else settings.steps
    grid, own = route(default, settings.sampler, settings.grid, steps)
    other = None if settings.schedule is None else make_schedule(settings.schedule)
    return Route(sampler, steps, grid, {**own, **settings.settings}, other or bundle.schedule, other)


@dataclass(frozen=True, eq=False)
class Layout:
    """What is asked for where on a canvas, the same for every picture.

    Attributes:
        places: their conditions are of one picture; those that share what guidance goes away from share the object.
        behind, cover, guidance: of the background, as in `guidance.settings.Composition`.
        colours: clean latents of pictures of one colour, shape (n, C), to show places alone on; None to show none so.
        share: of the steps at which they are shown alone.
    """

    places: tuple[Place, ...] = ()
    behind: Tensor | None = None
    cover: Cover | None = None
    guidance: float | None = None
    colours: Tensor | None = None
    share: float = 0.0

    def told(self, maps: Tensor) -> Layout:
        """The same of a model that is told maps of the canvas, shape (1, C, h, w); what was shared stays shared."""
        others = {id(own): own for own in (place.condition.unsaid for place in self.places) if own is not None}
        with_maps = {key: own.with_maps(maps) for key, own in others.items()}

        def told(condition: Condition) -> Condition:
            return replace(condition.with_maps(maps), unsaid=with_maps.get(id(condition.unsaid)))

        return replace(self, places=tuple(replace(p, condition=told(p.condition)) for p in self.places))


@dataclass(frozen=True)
class Work:
    """What is sampled.

    Attributes:
        condition: of every picture, or of one for all of them.
        shape: of one latent, (C, h, w).
        count: how many.
        stretch: where to begin and to end; its data has one entry a picture, or one for all.
        known: clean latents and where they are free, as in `guidance.known`, one a picture or one for all.
        crops: side and overlap, in cells, of the crops that the network is asked about; None for the whole.
        layout: what is asked for where, on the background that `condition` is of; None for one condition everywhere.
    """

    condition: Condition
    shape: tuple[int, int, int]
    count: int
    stretch: Stretch = field(default_factory=Stretch)
    known: tuple[Tensor, Tensor] | None = None
    crops: tuple[int, int] | None = None
    layout: Layout | None = None


def sampled(bundle: Bundle, work: Work, settings: Settings, *, device: torch.device) -> Tensor:
    """Latents, float32 of shape (count, C, h, w), on the CPU; entry k depends on (seed, offset + k) alone.

    Raises:
        SettingError: what does not fit the model, before its network is asked.
    """
    way = route_of(bundle, settings)
    around = set(samplers[way.sampler].choices) >= _TENSORS
    if around and work.known is None:
        raise SettingError(
            f"{way.sampler} goes back and forth around what is known of a picture, and here nothing is: sample with "
            "another, or inpaint with a model that is not told the mask"
        )
    guiding = replace(guidance_of(bundle, work.condition, settings), crops=work.crops)
    batch = settings.batch or comfortable_batch(work.shape, latent=bundle.codec.factor > 1)
    if settings.on_begin is not None:
        each = way.evaluations(work.stretch.t_start, work.stretch.t_end)
        settings.on_begin(None if each is None else work.count * each)
    made: dict[int, Tensor] = {}
    for numbers in _batches(work, batch):
        stretch, own, guided = work.stretch, dict(way.settings), guiding
        condition, *others = _conditions([work.condition, *_placed(work)], numbers)
        if stretch.start is not None:
            stretch = replace(stretch, start=_rows(stretch.start, numbers))
        if work.known is not None:
            data, free = (_rows(value, numbers).to(device) for value in work.known)
            if around:
                own |= {"known": data, "mask": 1 - free}
            else:
                guided = replace(guided, known=(data, free))
        if work.layout is not None:
            places = tuple(replace(p, condition=c) for p, c in zip(work.layout.places, others, strict=True))
            composition = _composition(bundle, work, way, settings, numbers)
            guided = replace(guided, composition=replace(composition, places=places))
        made |= zip(
            numbers,
            generate(
                bundle.denoiser(),
                work.shape,
                [settings.offset + number for number in numbers],
                condition=condition,
                sampler=way.sampler,
                steps=way.steps,
                grid=way.grid,
                schedule=way.other_schedule,
                stretch=stretch,
                guidance=guided,
                seed=settings.seed,
                device=device,
                settings=own,
                max_batch=settings.max_batch,
                on_step=settings.on_step,
                cancelled=settings.cancelled,
            ).cpu(),
            strict=True,
        )
    return torch.stack([made[number] for number in range(work.count)])


def guidance_of(bundle: Bundle, condition: Condition, settings: Settings) -> GuidanceSettings:
    """What changes the network's belief on its way to the sampler.

    Raises:
        SettingError: models that do not go together.
    """
    default, weaker, unconditional = bundle.sampling, settings.autoguidance, settings.unconditional
    if weaker is not None and weaker.bundle.label_names != bundle.label_names:
        raise SettingError(other_classes("weaker model", weaker.bundle.label_names, bundle.label_names))
    return GuidanceSettings(
        settings.weight(default.guidance if says_something(condition) else 1.0),
        unconditional=None if unconditional is None else unconditional.bundle.denoiser(),
        weaker=None if weaker is None else weaker.bundle.denoiser(),
        classifier=None if settings.classifier is None else settings.classifier.bundle.classifier(),
        classifier_scale=1.0 if settings.classifier_scale is None else settings.classifier_scale,
        rescale=settings.guidance_rescale,
        interval=settings.guidance_interval,
        threshold=settings.threshold,
        clip=default.clip,
        clip_keeps_direction=default.clip_keeps_direction and settings.sampler in (None, default.sampler),
    )


def says_something(condition: Condition) -> bool:
    """Whether there is anything that guidance could follow."""
    if condition.text is not None:
        return True
    return condition.labels is not None and bool((condition.labels != NULL_LABEL).any())


def comfortable_batch(shape: tuple[int, int, int], *, latent: bool) -> int:
    """How many pictures to make together when nobody says: 64 small ones, or about four latents of 64x64."""
    return max(1, min(64, 2**14 // (shape[1] * shape[2]))) if latent else 64


def other_classes(what: str, its: Sequence[str], wanted: Sequence[str]) -> str:
    """The sentence about classes that differ."""

    def shown(names: Sequence[str]) -> str:
        return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "no classes"

    return f"the {what} knows other classes ({shown(its)}) than the model ({shown(wanted)})"


def _batches(work: Work, most: int) -> Iterator[list[int]]:
    """Numbers of the pictures that are made together: at most so many, and of texts of one length."""
    lengths = work.condition.lengths
    of_each = [0] * work.count if lengths is None else lengths.tolist()
    for length in dict.fromkeys(of_each):
        alike = [number for number, own in enumerate(of_each) if own == length]
        yield from (alike[place : place + most] for place in range(0, len(alike), most))


def _rows(values: Tensor, numbers: Sequence[int]) -> Tensor:
    """Entries of some pictures, where there is one for each or one for all."""
    return values.expand(len(numbers), *values.shape[1:]) if len(values) == 1 else values[list(numbers)]


def _placed(work: Work) -> list[Condition]:
    return [] if work.layout is None else [place.condition for place in work.layout.places]


def _composition(bundle: Bundle, work: Work, way: Route, settings: Settings, numbers: Sequence[int]) -> Composition:
    """The layout for some pictures, but for its places."""
    layout = work.layout or Layout()
    backdrop, until = None, 1.0
    if layout.colours is not None and layout.share > 0:
        indices = [settings.offset + number for number in numbers]
        first = SampleNoise(settings.seed, indices)(torch.empty(len(numbers), *work.shape))
        backdrop = Backdrop(layout.colours, first, settings.seed, indices)
        # an adaptive sampler chooses its steps on the way: its share is of an even walk
        walk = make_walk("log_snr", way.schedule, _EVEN) if samplers[way.sampler].adaptive else way.walk
        times = truncate(walk.times, work.stretch.t_start, work.stretch.t_end)
        until = until_share(times, layout.share)
        if way.other_schedule is not None:  # plans are asked at times of the schedule that the network was trained on
            until = float(bundle.schedule.time(way.schedule.log_snr(torch.tensor([until], dtype=torch.float64))))
    return Composition((), layout.behind, layout.cover, layout.guidance, backdrop, until)


def _conditions(conditions: Sequence[Condition], numbers: Sequence[int]) -> list[Condition]:
    """Conditions of some pictures, where each is of every picture or of one for all; what is shared stays shared."""
    unsaid: dict[int, Condition] = {}
    chosen = []
    for condition in conditions:
        rows = torch.tensor([0] * len(numbers) if _is_alone(condition) else list(numbers))
        other = condition.unsaid
        if other is not None and id(other) not in unsaid:
            unsaid[id(other)] = other.take(torch.zeros_like(rows) if _is_alone(other) else rows)
        own = replace(condition, unsaid=None).take(rows)
        chosen.append(own if other is None else replace(own, unsaid=unsaid[id(other)]))
    return chosen


def _is_alone(condition: Condition) -> bool:
    given = condition.given
    return not given or len(next(iter(given.values()))) == 1
