"""A trained model, ready to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.folder import save_bundle
from neblina.bundle.lora.fuse import Fused, fuse
from neblina.bundle.lora.read import read_lora
from neblina.core.errors import SettingError
from neblina.core.kinds import checked
from neblina.core.memory import within_memory
from neblina.core.shards import Filing
from neblina.data.files import Pixels
from neblina.samplers.generate import Stretch
from neblina.tasks.asked import Labels, conditions_of, how_many, refuse_untold
from neblina.tasks.compose import compose
from neblina.tasks.decoding import Given
from neblina.tasks.edit import edit
from neblina.tasks.handed import notice, opened_photo
from neblina.tasks.inpaint import Margins, inpaint, outpaint
from neblina.tasks.masks import Mask, read_mask, thinness
from neblina.tasks.panorama import panorama
from neblina.tasks.photos import Photo, to_network
from neblina.tasks.sampling import Work, route_of, sampled
from neblina.tasks.scenes import Scene, read_scene, scene_of
from neblina.tasks.settings import settings_of
from neblina.tasks.sizes import latent_shape
from neblina.tasks.upscale import upscale

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colour


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
        """(C, H, W) of its pictures when no other size is asked for."""
        _, height, width = self.bundle.latent_shape
        factor = self.bundle.codec.factor
        return self.bundle.codec.picture_channels, height * factor, width * factor

    def add_loras(self, loras: Sequence[tuple[str | Path, float]]) -> Fused:
        """Add LoRA files to the weights, all at once; `.remove()` of what is returned takes them away bit for bit.

        Args:
            loras: files, or folders that diffusers saved one in, and how much of each: 0 is none, 1 the whole.
        Raises:
            CheckpointError: a file that cannot be read or does not fit the model.
            SettingError: there are some already, or an amount that is not finite.
        """
        return fuse(self.bundle.modules, [(read_lora(Path(place)), float(amount)) for place, amount in loras])

    def save(self, folder: str | Path, *, variant: str | None = None, max_shard: int | None = None) -> None:
        """Write the model as a folder that diffusers also opens, its weights in the precision that they have here.

        Args:
            variant: of the weight files, such as fp16.
            max_shard: bytes that a weight file holds at most; None for one file a component.
        Raises:
            CheckpointError: something that is not a model is there.
            SettingError: a variant or a size that no file can have.
            StorageError: the disk is full or refuses.
        """
        save_bundle(self.bundle, Path(folder), Filing(variant, max_shard))

    def latent_shape(self, size: tuple[int, int] | None = None) -> tuple[int, int, int]:
        """(C, h, w) of what is diffused for pictures of (height, width), or of the model's own size.

        Raises:
            SettingError: a size that the codec or the network cannot make.
        """
        return latent_shape(self.bundle, size)

    @checked
    @within_memory()
    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        labels: Labels | None = None,
        size: tuple[int, int] | None = None,
        start: Tensor | None = None,
        t_start: float = 1.0,
        t_end: float = 0.0,
        **settings: Any,
    ) -> Tensor:
        """New pictures, float32 of shape (n, C, H, W), in [−1, 1] up to the model's own overshoot, on the CPU.

        Picture k depends on (seed, offset + k) and its prompt or label alone, not on n or batch.

        Args:
            prompt: a text, or several in turn from picture 0 of the seed; None is the empty one.
            labels: classes by number or name, in turn likewise; None leaves it to the model, which then must know how
                to go without.
            size: (height, width) in pixels; None is the model's own.
            start: pictures in [−1, 1] to start from, shape (n, C, H, W) or one for all; noised to t_start.
            t_start: where to begin, 1 is noise; below 1 it needs pictures to start from.
            t_end: where to stop, 0 is clean; above 0 the pictures are as noisy as the process is there.
            settings: fields of `tasks.settings.Settings`, such as n, steps, sampler, guidance or seed.
        Raises:
            SettingError: an unknown name, label or setting, a number out of range, guidance without anything to guide
                towards, a prompt that is too long.
        """
        asked = settings_of(settings)
        refuse_untold(self.bundle, "generate")
        count = how_many(asked, prompt, labels)
        shape = self.latent_shape(size)
        pixels = self.shape[1:] if size is None else size
        condition = conditions_of(self.bundle, prompt, labels, asked, size=pixels, count=count)
        begin = None if start is None else self._start(start, count, pixels)
        work = Work(condition, shape, count, Stretch(begin, t_start, t_end))
        return self.decoded(sampled(self.bundle, work, asked, device=self.device))

    @checked
    def evaluations(self, *, t_start: float = 1.0, t_end: float = 0.0, **settings: Any) -> int | None:
        """How many answers a picture takes; None for an adaptive sampler.

        Args:
            t_start, t_end, settings: as in `generate`.
        Raises:
            SettingError: an unknown name or setting, or a number of steps that the grid does not have.
        """
        return route_of(self.bundle, settings_of(settings)).evaluations(t_start, t_end)

    @checked
    @within_memory()
    def edit(
        self,
        photo: Given | Photo,
        prompt: str | Sequence[str] | None = None,
        *,
        strength: float = 0.6,
        method: str = "noise",
        source: str = "",
        iterations: int = 1,
        depth: Given | Photo | None = None,
        labels: Labels | None = None,
        **settings: Any,
    ) -> Tensor:
        """Change a photo: noised part of the way and made anew under a prompt, or inverted and walked back.

        Args:
            photo: a path, a Pillow picture, or uint8 pixels of shape (H, W, 3) or (H, W).
            prompt: what it is to be; several go in turn, one picture each unless n says otherwise.
            strength: above 0, at most 1, which leaves nothing of it; how far towards noise it is taken.
            method: "noise", or "inversion" for faithful edits.
            source: what the photo shows, for inversion.
            iterations: of every step of an inversion; more come closer to the photo, and take as much longer.
            depth: how near each place of the photo is, the brighter the nearer, for a model that is told it.
            labels: what it is to be, of a model of classes.
            settings: fields of `tasks.settings.Settings`, such as n, steps, sampler, guidance or seed.
        Returns:
            uint8 of shape (n, C, H, W), at the photo's own size, C as many channels as the model's pictures have.
        Raises:
            SettingError: an unknown setting, a number out of range, what the model does not take.
            DataError: a photo that cannot be used as it is.
        """
        asked = settings_of(settings)
        return edit(
            self,
            opened_photo(photo),
            prompt,
            strength=strength,
            method=method,
            source=source,
            iterations=iterations,
            depth=None if depth is None else opened_photo(depth),
            labels=labels,
            settings=asked,
        )

    @checked
    @within_memory()
    def inpaint(
        self,
        photo: Given | Photo,
        mask: Given | Mask,
        prompt: str | Sequence[str] | None = None,
        *,
        strength: float = 1.0,
        soften: int = 0,
        labels: Labels | None = None,
        **settings: Any,
    ) -> Tensor:
        """Make the inside of a mask anew; where the mask is black every byte is the photo's.

        Args:
            photo: as in `edit`.
            mask: a picture of the photo's size, or uint8 of shape (H, W): white (255) is made anew, black (0) is kept,
                grey is between the two.
            prompt: what the inside is to show.
            strength: above 0, at most 1; below 1 what was inside the mask shows through.
            soften: pixels inside the mask over which what is made fades in.
            labels: as in `edit`.
            settings: as in `edit`; the sampler "repaint" goes back and forth between the known and the new.
        Returns:
            uint8 of shape (n, 3, H, W), at the photo's own size.
        Raises:
            SettingError, DataError: as in `edit`; a mask of another size, all black or all white.
        """
        asked = settings_of(settings)
        opened = opened_photo(photo)
        area = self._opened_mask(mask, opened.size)
        return inpaint(self, opened, area, prompt, strength=strength, soften=soften, labels=labels, settings=asked)

    @checked
    @within_memory()
    def outpaint(
        self,
        photo: Given | Photo,
        prompt: str | Sequence[str] | None = None,
        *,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
        labels: Labels | None = None,
        **settings: Any,
    ) -> Tensor:
        """Extend a photo past its borders; every byte of the photo is kept.

        Args:
            photo: as in `edit`.
            prompt: what the whole is to show.
            left, right, top, bottom: pixels to add at each side, any number.
            labels, settings: as in `edit`.
        Returns:
            uint8 of shape (n, 3, top + H + bottom, left + W + right).
        Raises:
            SettingError, DataError: as in `edit`; nothing to add.
        """
        asked = settings_of(settings)
        margins = Margins(left, right, top, bottom)
        return outpaint(self, opened_photo(photo), margins, prompt, labels=labels, settings=asked)

    @checked
    @within_memory()
    def upscale(
        self,
        photo: Given | Photo,
        prompt: str | Sequence[str] | None = None,
        *,
        factor: int = 4,
        noise_level: int | None = None,
        strength: float | None = None,
        labels: Labels | None = None,
        **settings: Any,
    ) -> Tensor:
        """Enlarge a photo: by a checkpoint that was trained for it, or crop by crop by any other model.

        Args:
            photo: as in `edit`.
            prompt: what it shows.
            factor: how many times as high and wide it gets; a checkpoint that was trained for it has one of its own.
            noise_level: steps of noise laid on the photo before such a checkpoint reads it; None is 20.
            strength: how much any other model may change; None is 0.3.
            labels, settings: as in `edit`.
        Returns:
            uint8 of shape (n, C, factor · H, factor · W), C as many channels as the model's pictures have.
        Raises:
            SettingError, DataError: as in `edit`; a factor that the model does not make.
        """
        asked = settings_of(settings)
        return upscale(
            self,
            opened_photo(photo),
            prompt,
            factor=factor,
            noise_level=noise_level,
            strength=strength,
            labels=labels,
            settings=asked,
        )

    @checked
    @within_memory()
    def compose(
        self,
        scene: Scene | Mapping[str, Any] | str | Path,
        *,
        photo: Given | Photo | None = None,
        mask: Given | Mask | None = None,
        strength: float | None = None,
        window: int | None = None,
        overlap: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Every element of a scene in its place, without training anything.

        Args:
            scene: a `tasks.scenes.Scene`, its plain values, or the path of a scene file.
            photo: of the scene's size, to begin at in place of noise.
            mask: of the photo, as in `inpaint`: the scene is placed inside it, and outside every byte stays.
            strength: how far towards noise the photo is taken, above 0, at most 1; None is 0.6, or 1 inside a mask.
            window: side, in pixels, of the windows in which a larger canvas is looked at; None is that of the model's
                own pictures.
            overlap: pixels that windows share at least; None is half a window.
            settings: as in `edit`.
        Returns:
            uint8 of shape (n, C, H, W), of the scene's size; with a mask C is 3.
        Raises:
            SettingError, DataError: as in `edit`; a scene that does not fit its canvas or the model.
        """
        asked = settings_of(settings)
        given = read_scene(scene) if isinstance(scene, str | Path) else scene
        placed = given if isinstance(given, Scene) else scene_of(given)
        opened = None if photo is None else opened_photo(photo)
        area = None if mask is None else self._opened_mask(mask, placed.size)
        return compose(
            self,
            placed,
            photo=opened,
            mask=area,
            strength=strength,
            window=window,
            overlap=overlap,
            settings=asked,
        )

    @checked
    @within_memory()
    def panorama(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        size: tuple[int, int],
        labels: Labels | None = None,
        wrap: bool = False,
        window: int | None = None,
        overlap: int | None = None,
        even: bool = False,
        **settings: Any,
    ) -> Tensor:
        """A picture of any size, through overlapping windows of the size that the model knows.

        Args:
            prompt: what it shows; several divide its width from left to right.
            size: (height, width) in pixels.
            labels: the same as classes, of a model of classes.
            wrap: whether the right border meets the left without a seam.
            window, overlap: as in `compose`.
            even: windows count as much at their borders as in their middle, as in the paper; else one fades into
                another.
            settings: as in `edit`.
        Returns:
            uint8 of shape (n, C, H, W).
        Raises:
            SettingError: as in `edit`; more prompts than there are columns of cells.
        """
        asked = settings_of(settings)
        return panorama(
            self,
            prompt,
            labels=labels,
            size=size,
            wrap=wrap,
            window=window,
            overlap=overlap,
            even=even,
            settings=asked,
        )

    @property
    def multiple(self) -> int:
        """What height and width of its pictures are multiples of."""
        return self.bundle.codec.factor * self.bundle.net.config.multiple

    def from_pixels(self, pixels: Pixels) -> Tensor:
        """uint8 pixels of shape (H, W, 3) as a batch of one in the model's channels, (1, C, H, W) in [−1, 1]."""
        picture = to_network(pixels)
        if self.shape[0] == picture.shape[1]:
            return picture
        return (picture * torch.tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)

    def encoded(self, pictures: Tensor) -> Tensor:
        """Latents of pictures in [−1, 1], one at a time: what a picture takes is what there must be memory for."""
        with torch.no_grad():
            return torch.cat([self.bundle.codec.encode(one[None].to(self.device)).cpu() for one in pictures])

    def decoded(self, latents: Tensor) -> Tensor:
        """Pictures of latents, float32 on the CPU, one at a time."""
        with torch.no_grad():
            return torch.cat([self.bundle.codec.decode(one[None].to(self.device)).cpu() for one in latents])

    def describe(self) -> dict[str, Any]:
        """What is known about the model."""
        bundle = self.bundle
        return {
            "pictures": "x".join(map(str, self.shape)),
            "parameters": sum(parameter.numel() for parameter in bundle.net.parameters()),
            "network": type(bundle.net).__name__,
            "text": bundle.text is not None,
            "process": bundle.schedule.config(),
            "predicts": bundle.parameterisation,
            "labels": list(bundle.label_names),
            "goes without a label": not bundle.label_names or bundle.null_label is not None,
            "sampling": vars(bundle.sampling),
            **bundle.card,
        }

    def _opened_mask(self, mask: Given | Mask, size: tuple[int, int]) -> Mask:
        """A mask for a photo of a size; what reading it did, and whether it is very thin, is said in a warning."""
        area = mask if isinstance(mask, Mask) else read_mask(mask, size)
        thin = thinness(area.values, self.bundle.codec.factor)
        notice(area.path, (*area.changes, *([] if thin is None else [thin])))
        return area

    def _start(self, start: Tensor, count: int, size: tuple[int, ...]) -> Tensor:
        """Latents of the pictures to start from, one for each that is made or one for all."""
        pictures = start if start.ndim == 4 else start[None]
        shape = (self.shape[0], *size)
        if tuple(pictures.shape[1:]) != shape or len(pictures) not in (1, count):
            raise SettingError(
                f"pictures to start from are {count} or 1 of shape {shape}, not of shape {tuple(start.shape)}"
            )
        return self.encoded(pictures.float())
