"""The table of metrics: what `neblina evaluate` can be asked for. A metric is a function to a result that can be read,
stored and looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from neblina.codecs.fold import Fold
from neblina.core.errors import SettingError
from neblina.core.registry import Registry
from neblina.data.pictures import Pictures
from neblina.evaluation.likelihood import How, Likelihood, Mean, OnProgress, likelihood
from neblina.tasks.held import Held
from neblina.tasks.model import Model
from neblina.tasks.plots import plot_likelihood


class Result(Protocol):
    """What a metric found."""

    @property
    def stopped(self) -> str | None:
        """How far it came, if it was stopped."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ...

    def sentences(self) -> list[str]:
        """The numbers with what they are."""
        ...

    def plot(self, place: Path) -> None:
        """A picture of them."""
        ...


Metric = Callable[[Model, Held, How, OnProgress | None], Result]
metrics: Registry[Metric] = Registry("metric")


@dataclass(frozen=True)
class LikelihoodResult:
    """Bits per dimension as a metric's result."""

    found: Likelihood

    @property
    def stopped(self) -> str | None:
        done, asked = self.found.pictures, self.found.asked
        return f"stopped after {done:,} of {asked:,} pictures" if done < asked else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self.found)

    def sentences(self) -> list[str]:
        lines, bound, ode = [], self.found.bound, self.found.ode
        if bound is not None:
            lines.append(f"variational bound  {_words(bound.total)} bits/dim, with the {bound.variance} variance")
            lines += [
                f"    {name:<14} {_words(mean)}"
                for name, mean in (
                    ("prior", bound.prior),
                    ("steps", bound.steps),
                    ("reconstruction", bound.reconstruction),
                )
            ]
            if bound.other is not None:
                lines.append(
                    f"    with the {'small' if bound.variance == 'large' else 'large'} variance {_words(bound.other)}"
                )
            if bound.evaluated < bound.of:
                lines.append(
                    f"    an unbiased estimate from {bound.evaluated} of {bound.of} steps a picture, drawn anew"
                )
        if ode is not None:
            lines.append(
                f"ODE                {_words(ode.total)} bits/dim, {ode.evaluations:.0f} evaluations a picture"
            )
        return lines

    def plot(self, place: Path) -> None:
        plot_likelihood(self.found, place)


@dataclass(frozen=True)
class _Folded:
    """Pictures as a model of folded ones sees them: the same numbers, so the same density."""

    whole: Pictures
    codec: Fold

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.whole.shape
        factor = self.codec.factor
        return channels * factor**2, height // factor, width // factor

    @property
    def labels(self) -> Tensor | None:
        return self.whole.labels

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.whole.label_names

    @property
    def captions(self) -> tuple[str, ...] | None:
        return self.whole.captions

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, numbers: Sequence[int]) -> Tensor:
        return self.codec.fold(self.whole.read(numbers))


def _words(mean: Mean) -> str:
    return f"{mean.bits:.4f}" + ("" if mean.error is None else f" ± {mean.error:.4f}")


def nll(model: Model, held: Held, how: How, on_progress: OnProgress | None) -> LikelihoodResult:
    """Bits per dimension, by the variational bound and by the probability-flow ODE.

    Raises:
        SettingError: a model of latents, which says no density of pictures.
    """
    codec, pictures = model.bundle.own_codec, held.pictures
    if isinstance(codec, Fold):
        pictures = _Folded(pictures, codec)
    elif codec is not None:
        raise SettingError(
            f"this model diffuses the latents of an autoencoder ({model.bundle.pipeline.codec}), whose density says "
            "nothing of pictures': bits per dimension are of models of pictures themselves"
        )
    found = likelihood(
        model.bundle.denoiser(),
        pictures,
        held.numbers,
        held.labels,
        replace(how, batch=min(how.batch, len(held.numbers))),
        device=model.device,
        on_progress=on_progress,
    )
    return LikelihoodResult(found)


metrics.add(nll, "nll")
