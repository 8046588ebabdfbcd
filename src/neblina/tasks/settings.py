"""How pictures are sampled: what every verb (generate, edit, inpaint, …) takes beside its own subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from neblina.core.errors import SettingError, choose
from neblina.core.kinds import check_kind
from neblina.encoders.prompts import LONG_PROMPTS
from neblina.samplers.drive import OnStep

if TYPE_CHECKING:
    from neblina.tasks.classifier import Classifier
    from neblina.tasks.model import Model


class Noticed(UserWarning):
    """What was done to something that was handed over, or what is to be expected of it."""


class LeftOut(Noticed):
    """Prompts or labels that no picture is made of."""


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled; None leaves it to the model.

    Attributes:
        n: how many pictures; None is one a label, prompt or photograph.
        steps: sampling steps.
        sampler: a registered name.
        grid: a registered grid of times.
        guidance: weight w of classifier-free guidance; 1 is none.
        omega: the same as the papers write it, (1 + ω) ε_c − ω ε_∅: w = 1 + ω.
        negative: what guidance goes away from: a text, or one a prompt.
        unconditional: a separately trained unconditional model for the other branch of the guidance.
        guidance_interval: the lowest and the highest noise level σ/α at which there is guidance.
        guidance_rescale: share of the spread that guidance added and that is taken back, 0 … 1.
        threshold: share of a picture's pixels that dynamic thresholding leaves as they are, such as 0.995.
        autoguidance: a weaker model of the same pictures and labels, for the other branch of the guidance.
        classifier: of noisy pictures, to be guided by; labels of an unconditional model are its classes.
        classifier_scale: weight of the classifier; None is 1.
        schedule: sample on this noise schedule in place of the one the model was trained on.
        truncation: share of the probability that tokens are drawn from, in (0, 1]; of models of tokens.
        top_classes: most classes that a token is drawn from, 0 for any number; of models of tokens.
        settings: of the sampler, such as {"eta": 0.5}.
        long_prompt: what to do with a prompt that the text encoder cannot read whole: refuse, chunk or cut.
        clip_skip: layers at the text encoder's end that are left out.
        seed: any integer.
        offset: number of the first picture under the seed.
        batch: pictures made together; guidance doubles what the network is given at once, places of a canvas and
            windows of it multiply it.
        max_batch: most samples in one network call; None is what free memory holds.
        on_begin: told how many answers the work takes, None where a sampler decides on the way.
        on_step: told after every answer of every batch.
        cancelled: asked before every step; once True, Cancelled is raised.
    """

    n: int | None = None
    steps: int | None = None
    sampler: str | None = None
    grid: str | None = None
    guidance: float | None = None
    omega: float | None = None
    negative: str | Sequence[str] | None = None
    unconditional: Model | None = None
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = 0.0
    threshold: float | None = None
    autoguidance: Model | None = None
    classifier: Classifier | None = None
    classifier_scale: float | None = None
    schedule: str | None = None
    truncation: float | None = None
    top_classes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    long_prompt: str = "refuse"
    clip_skip: int | None = None
    seed: int = 0
    offset: int = 0
    batch: int | None = None
    max_batch: int | None = None
    on_begin: Callable[[int | None], None] | None = None
    on_step: OnStep | None = None
    cancelled: Callable[[], bool] | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself or is out of range.

        Raises:
            SettingError: naming the setting.
        """
        for name, kind in _kinds().items():
            check_kind(name, getattr(self, name), kind)
        if self.guidance is not None and self.omega is not None:
            raise SettingError(
                f"guidance {self.guidance:g} and omega {self.omega:g} say the same thing, w = 1 + ω; give one"
            )
        if self.classifier_scale is not None and self.classifier is None:
            raise SettingError(f"classifier_scale {self.classifier_scale:g} weighs a classifier, and none is given")
        if (self.n is not None and self.n < 1) or (self.batch is not None and self.batch < 1) or self.offset < 0:
            raise SettingError(
                f"n ({self.n}) and batch ({self.batch}) are at least 1, offset ({self.offset}) at least 0"
            )
        if self.max_batch is not None and self.max_batch < 1:
            raise SettingError(f"max_batch is at least 1 sample a network call, not {self.max_batch}")
        choose("way with long prompts", self.long_prompt, LONG_PROMPTS)
        if self.clip_skip is not None and self.clip_skip < 0:
            raise SettingError(f"clip_skip leaves out at least 0 layers, not {self.clip_skip}")

    def weight(self, default: float) -> float:
        """The weight of classifier-free guidance."""
        if self.omega is not None:
            return 1 + self.omega
        return default if self.guidance is None else self.guidance


@cache
def _kinds() -> dict[str, Any]:
    """What each setting is."""
    from neblina.tasks.classifier import Classifier  # both are made of this module
    from neblina.tasks.model import Model

    return get_type_hints(Settings, localns={"Model": Model, "Classifier": Classifier})


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings by name.

    Raises:
        SettingError: a name that there is not, or a value that is not of its kind or does not fit.
    """
    for name in given:
        choose("setting", name, (field.name for field in fields(Settings)))
    return Settings(**given)
