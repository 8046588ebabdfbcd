"""The table of metrics: what `neblina evaluate` can be asked for. A metric is a function to a result that can be read,
stored and looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from neblina.codecs.fold import Fold
from neblina.codecs.levels import Levels
from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.registry import Registry
from neblina.data.pictures import Pictures, Record
from neblina.evaluation.likelihood import How, Likelihood, likelihood
from neblina.evaluation.shares import Mean, OnProgress
from neblina.evaluation.tokens import TokenLikelihood, token_likelihood
from neblina.tasks.held import Held
from neblina.tasks.held_rows import HeldRows
from neblina.tasks.model import Model
from neblina.tasks.plots import plot_likelihood, plot_token_likelihood
from neblina.tasks.token_model import TokenModel


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

TokenMetric = Callable[[TokenModel, HeldRows, How, OnProgress | None], Result]
token_metrics: Registry[TokenMetric] = Registry("metric of models of tokens")


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
    def records(self) -> tuple[Record, ...] | None:
        return self.whole.records

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


@dataclass(frozen=True)
class TokenLikelihoodResult:
    """Bits a token as a metric's result; `unit` is what a token is."""

    found: TokenLikelihood
    unit: str

    @property
    def stopped(self) -> str | None:
        done, asked = self.found.rows, self.found.asked
        return f"stopped after {done:,} of {asked:,} rows" if done < asked else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self.found), "unit": self.unit}

    def sentences(self) -> list[str]:
        found = self.found
        lines = [f"variational bound  {_words(found.total)} {self.unit}"]
        lines += [f"    {name:<14} {_words(mean)}" for name, mean in (("prior", found.prior), ("steps", found.steps))]
        if found.evaluated < found.of:
            lines.append(f"    an unbiased estimate from {found.evaluated} of {found.of} steps a row, drawn anew")
        return lines

    def plot(self, place: Path) -> None:
        plot_token_likelihood(self.found, self.unit, place)


def token_nll(model: TokenModel, held: HeldRows, how: How, on_progress: OnProgress | None) -> TokenLikelihoodResult:
    """Bits a token by the variational bound: bits per character of letters, per dimension of pixels.

    Raises:
        SettingError: by the ODE, which tokens have none of.
    """
    if "bound" not in how.methods:
        raise SettingError("a model of tokens has a variational bound and no ODE: ask for --method bound")
    codec = model.bundle.codec
    unit = "bits/character" if codec is None else "bits/dim" if isinstance(codec, Levels) else "bits/code"
    found = token_likelihood(
        model.bundle.denoiser(),
        held.rows,
        held.numbers,
        Condition(held.labels),
        replace(how, batch=min(how.batch, len(held.numbers))),
        device=model.device,
        on_progress=on_progress,
    )
    return TokenLikelihoodResult(found, unit)


token_metrics.add(token_nll, "nll")
