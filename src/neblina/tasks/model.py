"""A trained model, ready to be asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.folder import Bundle, load_bundle, save_bundle
from neblina.bundle.schedulers import route
from neblina.core.devices import pick_device
from neblina.core.errors import SettingError, choose
from neblina.guidance.settings import GuidanceSettings
from neblina.processes.foreign import make_walk
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import truncate
from neblina.processes.schedules import make_schedule
from neblina.samplers import samplers
from neblina.samplers.drive import OnStep
from neblina.samplers.generate import Stretch, generate
from neblina.tasks.classifier import Classifier

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Model:
    """A model in memory.

    Attributes:
        bundle: its parts and what is known about it.
        device: where it computes.
    """

    bundle: Bundle
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its pictures."""
        config = self.bundle.net.config
        size = config.sample_size
        if size is None:
            raise SettingError("the model's configuration does not say a sample_size")
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder that diffusers also opens.

        Raises:
            CheckpointError: something that is not a model is there.
            StorageError: the disk is full or refuses.
        """
        save_bundle(self.bundle, Path(folder))

    def generate(
        self,
        *,
        labels: int | str | Sequence[int | str] | None = None,
        n: int | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
        omega: float | None = None,
        unconditional: "Model | None" = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_rescale: float = 0.0,
        threshold: float | None = None,
        autoguidance: "Model | None" = None,
        classifier: Classifier | None = None,
        classifier_scale: float | None = None,
        schedule: str | None = None,
        start: Tensor | None = None,
        t_start: float = 1.0,
        t_end: float = 0.0,
        seed: int = 0,
        offset: int = 0,
        batch: int = 64,
        settings: dict[str, Any] | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """New pictures, float32 of shape (n, C, H, W), in [−1, 1] up to the model's own overshoot, on the CPU.

        Picture k depends on (seed, offset + k) and its label alone, not on n or batch.

        Args:
            labels: classes by number or name, in turn from picture 0 of the seed; None leaves it to the
                model, which then must know how to go without.
            n: how many; None is one a label.
            steps: sampling steps; None is the model's default, as for the next three.
            sampler: a registered name.
            grid: a registered grid of times.
            guidance: weight w of classifier-free guidance; 1 is none.
            omega: the same as the papers write it, (1 + ω) ε_c − ω ε_∅: w = 1 + ω.
            unconditional: a separately trained unconditional model for the other branch of the guidance.
            guidance_interval: the lowest and the highest noise level σ/α at which there is guidance; None for all.
            guidance_rescale: share of the spread that guidance added and that is taken back, 0 … 1.
            threshold: share of a picture's pixels that dynamic thresholding leaves as they are, such as 0.995; None
                for none.
            autoguidance: a weaker model of the same pictures and labels, for the other branch of the guidance.
            classifier: of noisy pictures, to be guided by; labels of an unconditional model are its classes.
            classifier_scale: weight of the classifier; None is 1.
            schedule: sample on this schedule in place of the one the model was trained on.
            start: pictures in [−1, 1] to start from, shape (n, C, H, W) or one for all; noised to t_start.
            t_start: where to begin, 1 is noise; below 1 it needs pictures to start from.
            t_end: where to stop, 0 is clean; above 0 the pictures are as noisy as the process is there.
            seed: any integer.
            offset: number of the first picture under the seed.
            batch: pictures made together; guidance doubles what the network is given at once.
            settings: of the sampler, such as {"eta": 0.5}.
            on_step: told after every answer of every batch.
            cancelled: asked before every step; once True, Cancelled is raised.
        Raises:
            SettingError: an unknown name, label or setting, a number out of range, or guidance without a label.
        """
        default = self.bundle.sampling
        if guidance is not None and omega is not None:
            raise SettingError(f"guidance {guidance:g} and omega {omega:g} say the same thing, w = 1 + ω; give one")
        if omega is not None:
            guidance = 1 + omega
        if guidance is None:
            guidance = default.guidance if labels is not None else 1.0
        classes = self._labels(labels, classifier)
        guiding = GuidanceSettings(
            guidance,
            unconditional=None if unconditional is None else unconditional.bundle.denoiser(),
            weaker=None if autoguidance is None else autoguidance.bundle.denoiser(),
            classifier=None if classifier is None else classifier.bundle.classifier(),
            classifier_scale=1.0 if classifier_scale is None else classifier_scale,
            rescale=guidance_rescale,
            interval=guidance_interval,
            threshold=threshold,
            clip=default.clip,
            clip_keeps_direction=default.clip_keeps_direction and sampler in (None, default.sampler),
        )
        if classifier_scale is not None and classifier is None:
            raise SettingError(f"classifier_scale {classifier_scale:g} weighs a classifier, and none is given")
        if autoguidance is not None and autoguidance.bundle.label_names != self.bundle.label_names:
            raise SettingError(_other_classes("weaker model", autoguidance.bundle.label_names, self.bundle.label_names))
        count = n if n is not None else len(classes or [0])
        if count < 1 or batch < 1 or offset < 0:
            raise SettingError(f"n ({count}) and batch ({batch}) are at least 1, offset ({offset}) at least 0")
        if steps is not None and samplers[sampler or default.sampler].adaptive:
            raise SettingError(
                f"{sampler or default.sampler} chooses its own steps; give it a tolerance in place of steps"
            )
        taken = default.steps if steps is None else steps
        way, own_settings = route(default, sampler, grid, taken)
        begin = None if start is None else self._start(start, count)
        parts = []
        for place in range(0, count, batch):
            numbers = range(place, min(place + batch, count))
            given = (
                None
                if classes is None
                else torch.tensor([classes[(offset + number) % len(classes)] for number in numbers])
            )
            parts.append(
                generate(
                    self.bundle.denoiser(),
                    self.shape,
                    [offset + number for number in numbers],
                    labels=given,
                    sampler=sampler or default.sampler,
                    steps=taken,
                    grid=way,
                    schedule=None if schedule is None else make_schedule(schedule),
                    stretch=Stretch(None if begin is None else begin[numbers.start : numbers.stop], t_start, t_end),
                    guidance=guiding,
                    seed=seed,
                    device=self.device,
                    settings={**own_settings, **(settings or {})},
                    on_step=on_step,
                    cancelled=cancelled,
                ).cpu()
            )
        return torch.cat(parts)

    def evaluations(
        self,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | None = None,
        schedule: str | None = None,
        t_start: float = 1.0,
        t_end: float = 0.0,
        settings: dict[str, Any] | None = None,
    ) -> int | None:
        """How many answers a picture takes: what a progress bar counts; None for an adaptive sampler.

        Raises:
            SettingError: an unknown name or setting, or a number of steps that the grid does not have.
        """
        default = self.bundle.sampling
        chosen = samplers[sampler or default.sampler]
        taken = default.steps if steps is None else steps
        way, own_settings = route(default, sampler, grid, taken)
        process = GaussianProcess(self.bundle.schedule if schedule is None else make_schedule(schedule))
        times = truncate(make_walk(way or chosen.grid, process.schedule, taken).times, t_start, t_end)
        return chosen.evaluations(process, times, **{**own_settings, **(settings or {})})

    def describe(self) -> dict[str, Any]:
        """What is known about the model."""
        config = self.bundle.net.config
        return {
            "pictures": "x".join(map(str, self.shape)),
            "parameters": sum(parameter.numel() for parameter in self.bundle.net.parameters()),
            "levels": list(config.block_out_channels),
            "process": self.bundle.schedule.config(),
            "predicts": self.bundle.parameterisation,
            "labels": list(self.bundle.label_names),
            "goes without a label": not self.bundle.label_names or self.bundle.null_label is not None,
            "sampling": vars(self.bundle.sampling),
            **self.bundle.card,
        }

    def _start(self, start: Tensor, count: int) -> Tensor:
        """Pictures to start from, one for each that is made."""
        pictures = start if start.ndim == 4 else start[None]
        if tuple(pictures.shape[1:]) != self.shape or len(pictures) not in (1, count):
            raise SettingError(
                f"pictures to start from are {count} or 1 of shape {self.shape}, not of shape {tuple(start.shape)}"
            )
        return pictures.float().expand(count, *self.shape)

    def _labels(
        self, labels: int | str | Sequence[int | str] | None, classifier: Classifier | None
    ) -> list[int] | None:
        names = self.bundle.label_names
        if classifier is not None:
            if names and names != classifier.bundle.label_names:
                raise SettingError(_other_classes("classifier", classifier.bundle.label_names, names))
            names = classifier.bundle.label_names
        if labels is None:
            return [-1] if names else None
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
        return names.index(choose("label of this model", label, names))
    if not 0 <= label < len(names):
        raise SettingError(f"label {label} is out of range: this model knows 0 … {len(names) - 1}")
    return label


def _other_classes(what: str, its: Sequence[str], wanted: Sequence[str]) -> str:
    def shown(names: Sequence[str]) -> str:
        return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "no classes"

    return f"the {what} knows other classes ({shown(its)}) than the model ({shown(wanted)})"


def load(folder: str | Path, *, device: str | None = None, dtype: str = "fp32") -> Model:
    """Open a model folder, ours or a DDPMPipeline that diffusers wrote.

    Args:
        folder: where it is.
        device: "cpu", "cuda", …; None for a GPU if there is one.
        dtype: fp32, bf16 or fp16: of the network's weights and arithmetic. Posteriors stay float32.
    Raises:
        CheckpointError: a file is missing, cut short, or does not fit.
        SettingError: an unknown dtype, device or configuration field.
    """
    chosen = _DTYPES[choose("dtype", dtype, _DTYPES)]
    place = pick_device(device)
    bundle = load_bundle(Path(folder))
    bundle.net.to(place, chosen)
    bundle.net.channels_last()
    return Model(bundle, place)
