"""A trained model of tokens, ready to be asked: pictures of codes or of levels, and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.components import Opening
from neblina.bundle.index import read_index
from neblina.bundle.single_tokens import token_bundle_of_file
from neblina.bundle.sources import resolve
from neblina.bundle.tokens import TokenBundle, load_token_bundle, save_token_bundle
from neblina.codecs.levels import Levels
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.devices import pick_device
from neblina.core.errors import CheckpointError, SettingError, choose
from neblina.core.kinds import checked
from neblina.core.memory import within_memory
from neblina.samplers.drive import OnStep
from neblina.samplers.generate_tokens import generate_tokens

_BATCH = 32  # samples made together


@dataclass(frozen=True)
class TokenSettings:
    """How tokens are sampled; None leaves it to the model.

    Attributes:
        n: how many; None is one a prompt or label.
        steps: evaluations.
        sampler: a registered sampler of tokens.
        guidance: weight w of classifier-free guidance in log-probabilities; 1 is none.
        negative: what guidance goes away from, in place of what the model learned for it.
        truncation: share of the probability that is drawn from, in (0, 1].
        top_classes: most classes that are drawn from; 0 for any number.
        settings: of the sampler, such as {"temperature": 2.0}.
        seed: any integer.
        offset: number of the first sample under the seed.
        batch: samples made together.
        on_begin: told before anything is made how many evaluations of one sample there will be.
        on_step: told after every answer of every batch.
        cancelled: asked before every step; once True, Cancelled is raised.
    """

    n: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    negative: str | None = None
    truncation: float | None = None
    top_classes: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    offset: int = 0
    batch: int = _BATCH
    on_begin: Callable[[int | None], None] | None = None
    on_step: OnStep | None = None
    cancelled: Callable[[], bool] | None = None


@within_memory()
def load_tokens(
    model: str | Path,
    *,
    device: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    text_encoder: str | Path | None = None,
) -> TokenModel:
    """Open a model of tokens: a folder, ours or one of VQ-Diffusion that diffusers wrote, a hub id, or a `.pth` of
    VQ-Diffusion's original release with its yaml beside it.

    Args:
        model: where it is. The yaml of a `.pth` is the one of its name, `config.yaml`, or the only one beside it.
        device: "cpu", "cuda", …; None for a GPU if there is one.
        revision: branch, tag or commit of a hub id.
        variant: of the weight files, such as fp16.
        text_encoder: of a `.pth` that reads text: a folder or hub id with the CLIP that it was trained with and the
            tokenizer; the release's is openai/clip-vit-base-patch32.
    Raises:
        CheckpointError: a file is missing, cut short, or does not fit the others; a model of other things.
        SettingError: a configuration that is not followed here.
    """
    place, chosen = resolve(model, revision=revision, variant=variant), pick_device(device)
    opening = Opening(variant, device=chosen)
    if place.is_file() and place.suffix == ".pth":
        encoder = None if text_encoder is None else resolve(text_encoder)
        return TokenModel(token_bundle_of_file(place, opening, text_encoder=encoder), chosen)
    if text_encoder is not None:
        raise SettingError(f"text_encoder is for a .pth of VQ-Diffusion's release, and {model} is none: leave it out")
    if not place.is_dir() or not read_index(place)[1].tokens:
        raise CheckpointError(f"{model} is no model of tokens: open it with neblina.load")
    return TokenModel(load_token_bundle(place, opening), chosen)


def is_of_tokens(folder: Path) -> bool:
    """Whether a folder holds a model of tokens; one whose index cannot be read does not: whoever opens it says why."""
    try:
        return read_index(folder)[1].tokens
    except CheckpointError:
        return False


@dataclass(frozen=True)
class TokenModel:
    """A model in memory.

    Attributes:
        bundle: its parts and what is known about it.
        device: where it computes.
    """

    bundle: TokenBundle
    device: torch.device

    def save(self, folder: str | Path) -> None:
        """Write the model as a folder; VQ-Diffusion's own layout opens in diffusers too.

        Raises:
            CheckpointError: something that is not a model is there.
            StorageError: the disk is full or refuses.
        """
        save_token_bundle(self.bundle, Path(folder))

    @checked
    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        labels: int | str | Sequence[int | str] | None = None,
        **settings: Any,
    ) -> Tensor:
        """New pictures, float32 of shape (n, C, H, W), in [−1, 1] up to the codec's overshoot, on the CPU.

        Picture k depends on (seed, offset + k) and its prompt or label alone.

        Args:
            prompt: a text, or several in turn; None is what the model learned for none.
            labels: classes by number or name, in turn.
            settings: fields of `TokenSettings`, such as n, steps, sampler, guidance, truncation or seed.
        Raises:
            SettingError: an unknown setting, a number out of range, what the model does not take, or a model of text.
        """
        codec = self.bundle.codec
        if codec is None:
            raise SettingError("this model makes text: call write() for it")
        tokens = self.tokens(prompt, labels=labels, **settings)
        with torch.no_grad():
            return torch.cat([codec.decode_codes(some.to(self.device)).cpu() for some in torch.split(tokens, _BATCH)])

    @checked
    def write(self, *, labels: int | str | Sequence[int | str] | None = None, **settings: Any) -> list[str]:
        """New texts, of as many letters as the model has places.

        Args:
            labels, settings: as of `generate`.
        Raises:
            SettingError: as of `generate`; a model of pictures.
        """
        if not self.bundle.alphabet:
            raise SettingError("this model makes pictures: call generate() for them")
        tokens = self.tokens(None, labels=labels, **settings)
        return ["".join(self.bundle.alphabet[one] for one in row) for row in tokens.flatten(1).tolist()]

    @within_memory()
    def tokens(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        labels: int | str | Sequence[int | str] | None = None,
        **settings: Any,
    ) -> Tensor:
        """New tokens, int64 of shape (n, *shape), on the CPU; arguments and errors of `generate`."""
        for name in settings:
            choose("setting", name, TokenSettings.__dataclass_fields__)
        asked = TokenSettings(**settings)
        if asked.batch < 1 or asked.offset < 0 or (asked.n is not None and asked.n < 1):
            raise SettingError(
                f"n ({asked.n}) and batch ({asked.batch}) are at least 1, offset ({asked.offset}) is at least 0"
            )
        condition, count = self._condition(prompt, labels, asked)
        sampling = self.bundle.sampling
        weight = sampling.guidance if asked.guidance is None else asked.guidance
        if not condition.given and weight != 1:
            if asked.guidance is not None:
                raise SettingError(f"guidance {weight:g} has nothing to guide towards: this model is unconditional")
            weight = 1.0
        steps = sampling.steps if asked.steps is None else asked.steps
        if asked.on_begin is not None:
            asked.on_begin(count * steps)
        parts = []
        for start in range(0, count, asked.batch):
            rows = torch.arange(start, min(start + asked.batch, count))
            parts.append(
                generate_tokens(
                    self.bundle.denoiser(),
                    self.bundle.shape,
                    (rows + asked.offset).tolist(),
                    condition=condition.take(rows) if condition.given else condition,
                    sampler=asked.sampler or sampling.sampler,
                    steps=steps,
                    guidance=weight,
                    truncation=sampling.truncation if asked.truncation is None else asked.truncation,
                    top=asked.top_classes,
                    seed=asked.seed,
                    device=self.device,
                    settings=asked.settings,
                    on_step=asked.on_step,
                    cancelled=asked.cancelled,
                ).cpu()
            )
        return torch.cat(parts)

    def _condition(
        self, prompt: str | Sequence[str] | None, labels: int | str | Sequence[int | str] | None, asked: TokenSettings
    ) -> tuple[Condition, int]:
        """The condition of each sample, and how many there are."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        classes = [labels] if isinstance(labels, int | str) else list(labels or [])
        count = asked.n or max(1, len(prompts), len(classes))
        turn = torch.arange(asked.offset, asked.offset + count)
        if self.bundle.text is not None:
            if classes:
                raise SettingError("this model is conditioned on text, not on labels: give a prompt")
            encoded = self.bundle.encode(prompts or [""], asked.negative)
            return encoded.take(turn % max(len(prompts), 1)), count
        if prompts or asked.negative is not None:
            raise SettingError("this model reads no text: leave the prompt and the negative prompt out")
        if not self.bundle.net.config.num_labels:
            if classes:
                raise SettingError("this model is unconditional: it takes no labels")
            return Condition(), count
        numbers = torch.tensor([self._label(one) for one in classes] or [NULL_LABEL])
        return Condition(numbers[turn % len(numbers)]), count

    def _label(self, label: int | str) -> int:
        names = self.bundle.label_names
        if isinstance(label, str) and not label.lstrip("-").isdigit():
            return names.index(choose("label", label, names))
        return int(label)

    def describe(self) -> dict[str, Any]:
        """What is known about the model, in plain values."""
        bundle, kernel = self.bundle, self.bundle.kernel
        said = {name: value for name, value in kernel.config().items() if name not in ("alphas", "unmasked")}
        facts: dict[str, Any] = {
            "makes": "texts" if bundle.alphabet else "pictures",
            "tokens": list(bundle.shape),
            "classes of a token": kernel.classes,
            "kernel": said,
            "steps": bundle.clock_steps,
            "parameters": sum(parameter.numel() for parameter in bundle.net.parameters()),
            "labels": list(bundle.label_names),
            "sampling": asdict(bundle.sampling),
        }
        return {**facts, **{name: bundle.card[name] for name in ("measured", "sample") if name in bundle.card}}

    @property
    def conditioned(self) -> bool:
        """Whether there is something to guide towards: a text or labels."""
        return self.bundle.text is not None or bool(self.bundle.label_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its pictures.

        Raises:
            SettingError: a model of text.
        """
        codec, shape = self.bundle.codec, self.bundle.shape
        if codec is None or len(shape) != 2:
            raise SettingError("this model makes text, which has no size in pixels")
        if isinstance(codec, Levels):
            return 1, shape[0], shape[1]
        return codec.picture_channels, shape[0] * codec.factor, shape[1] * codec.factor
