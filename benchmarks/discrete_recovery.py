"""Wrong tokens put right, and halves completed: mask-and-replace, absorbing, autoregressive.

    OMP_NUM_THREADS=1 python benchmarks/discrete_recovery.py PATH_TO_MNIST RUNS --out recovery.json
    python benchmarks/discrete_recovery.py --out recovery.json --report docs/images

RUNS as of discrete_quality.py. Of pictures that were held out, each token is replaced by a random one with probability
r; no model is told which, nor the label; all are told r. What each then does:

- mask-and-replace, as they are: the tokens are taken for x_t at the time t at which the kernel has replaced a share r
  of the tokens that it has not masked, and the walk goes on from there. Masks say nothing about other tokens, so an
  exact belief would be the posterior under just this corruption.
- mask-and-replace, doubt: one evaluation at that time; each token stays with the probability that it is believed to be
  right and is masked otherwise; the walk goes on from the time with as many masks.
- absorbing, masked at random: a token that is not masked stays, so wrong ones would; a share r is masked at random, and
  the walk goes on from the time with as many masks.
- autoregressive: every token is drawn from its posterior given those before it, (1 − r) [x = y] + r/K times what the
  network says.

Completing: three of seven rows of tokens are free, the upper or the lower ones, and the others known. Diffusion starts
with masks for the free ones at the time with as many masks, and the known ones are put back after every step. The
autoregressive model goes on from the upper rows; what is below the free ones it cannot read.

Scores: tokens that are as they were, and what a reader of digits takes the decoded picture for.
"""

import argparse
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from discrete_data import AT_ONCE, CLASSES, Models, Table, balanced, open_models, reader_of, real_pictures
from discrete_recovery_report import FREE, SHARES, report
from torch import Tensor

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.noise import Noise, SampleNoise
from neblina.core.plan import Query, conditional
from neblina.evaluation.classifier import ClassifierFeatures
from neblina.processes.discrete import DiscreteProcess, one_hot
from neblina.processes.draws import uniforms
from neblina.samplers.autoregressive import generate_in_order
from neblina.samplers.drive import sample
from neblina.samplers.registry import TokenSampling
from neblina.samplers.tokens import masked_share
from neblina.tasks.token_model import TokenModel

SHOWN = 10  # pictures on the sheet
FINE = torch.linspace(0, 1, 10_001, dtype=torch.float64)


def corrupted(tokens: Tensor, share: float, classes: int) -> Tensor:
    """Each token replaced by a random one, itself among them, with probability `share`."""
    generator = torch.Generator().manual_seed(round(1000 * share))
    hit = torch.rand(tokens.shape, generator=generator) < share
    return torch.where(hit, torch.randint(0, classes, tokens.shape, generator=generator), tokens)


def time_of_replaced(process: DiscreteProcess, share: float) -> Tensor:
    """When a share of the unmasked tokens has been replaced, shape (1,)."""
    law = process.marginal(torch.zeros(len(FINE), 1, dtype=torch.int64), FINE, torch.float64)[:, 0].exp()
    replaced = process.kernel.classes * law[:, 1]
    found = replaced / (law[:, 0] - law[:, 1] + replaced)
    return FINE[(found - share).abs().argmin()][None]


def time_of_masked(process: DiscreteProcess, share: float) -> Tensor:
    """When a share of the tokens has been masked, shape (1,)."""
    return FINE[(masked_share(process, FINE) - share).abs().argmin()][None]


def going_on(
    process: DiscreteProcess, x: Tensor, start: Tensor, steps: int, known: Tensor, noise: Noise
) -> TokenSampling:
    """The ancestral walk from x at time `start`; tokens `known`, int64 of x's shape, are put back, −1 where free."""
    times = torch.linspace(float(start), 0, steps + 1, dtype=torch.float64)
    for t, s in pairwise(times):
        belief = yield Query(x, t.expand(len(x)))
        x = process.reverse(x, t.expand(len(x)), s.expand(len(x)), belief).sample(noise)
        x = torch.where(known >= 0, known, x)
    return x


def walked(model: TokenModel, x: Tensor, start: Tensor, steps: int, known: Tensor | None = None) -> Tensor:
    """What a model of diffusion makes of tokens at a time, told no label."""
    denoiser, parts = model.bundle.denoiser(), []
    known = torch.full_like(x, -1) if known is None else known
    for numbers in torch.arange(len(x)).split(AT_ONCE):
        plan = conditional(denoiser, Condition(torch.full((len(numbers),), NULL_LABEL)))
        noise = SampleNoise(0, numbers.tolist())
        parts.append(sample(going_on(denoiser.process, x[numbers], start, steps, known[numbers], noise), plan))
    return torch.cat(parts)


def masked_by(chosen: Tensor, x: Tensor, model: TokenModel, steps: int) -> Tensor:
    """What a model makes of tokens some of which are masked."""
    process = model.bundle.denoiser().process
    masked = torch.where(chosen, process.kernel.classes, x)
    return walked(model, masked, time_of_masked(process, float(chosen.double().mean())), steps)


def as_they_are(models: Models, x: Tensor, share: float, steps: int) -> Tensor:
    model = models.diffusion["mask-and-replace"]
    return walked(model, x, time_of_replaced(model.bundle.denoiser().process, share), steps)


def by_doubt(models: Models, x: Tensor, share: float, steps: int) -> Tensor:
    model = models.diffusion["mask-and-replace"]
    denoiser = model.bundle.denoiser()
    t = time_of_replaced(denoiser.process, share)
    kept = []
    for some in x.split(AT_ONCE):
        belief = denoiser.posterior(some, t.expand(len(some)), Condition(torch.full((len(some),), NULL_LABEL)))
        kept.append(belief.log_probs.gather(-1, some[..., None])[..., 0].exp())
    doubted = uniforms(SampleNoise(1, range(len(x))), x) >= torch.cat(kept)
    return masked_by(doubted, x, model, steps)


def at_random(models: Models, x: Tensor, share: float, steps: int) -> Tensor:
    chosen = uniforms(SampleNoise(1, range(len(x))), x) < share
    return masked_by(chosen, x, models.diffusion["absorbing"], steps)


def left_to_right(models: Models, x: Tensor, share: float, steps: int) -> Tensor:
    classes, parts = models.writer.config.num_categories, []
    for numbers in torch.arange(len(x)).split(AT_ONCE):
        y = x[numbers].flatten(1)
        weights = (one_hot(y, classes).exp() * (1 - share) + share / classes).log()
        labels = torch.full((len(numbers),), CLASSES)
        parts.append(generate_in_order(models.writer, numbers.tolist(), labels=labels, log_weights=weights))
    return torch.cat(parts).reshape(x.shape)


def completed(models: Models, kind: str, x: Tensor, free: Tensor, steps: int) -> Tensor:
    """Free tokens, bool of shape (7, 7), from the others by diffusion."""
    model = models.diffusion[kind]
    process = model.bundle.denoiser().process
    masked = torch.where(free, process.kernel.classes, x)
    start = time_of_masked(process, float(free.double().mean()))
    return walked(model, masked, start, steps, torch.where(free, -1, x))


def gone_on(models: Models, x: Tensor, free: Tensor, steps: int) -> Tensor:
    """Free tokens by the autoregressive model, which reads those before the first of them."""
    first, parts = int(free.flatten().nonzero()[0]), []
    for numbers in torch.arange(len(x)).split(AT_ONCE):
        prefix = x[numbers].flatten(1)[:, :first] if first else None
        labels = torch.full((len(numbers),), CLASSES)
        parts.append(generate_in_order(models.writer, numbers.tolist(), labels=labels, prefix=prefix))
    return torch.where(free, torch.cat(parts).reshape(x.shape), x)


RECOVERING = {
    "mask-and-replace, as they are": as_they_are,
    "mask-and-replace, doubt": by_doubt,
    "absorbing, masked at random": at_random,
    "autoregressive": left_to_right,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("discrete-recovery.json"))
    parser.add_argument("--cache", type=Path, default=Path("discrete-reader"), help="folder of the fitted reader")
    parser.add_argument("--report", type=Path, help="folder of pictures; measures nothing")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--steps", type=int, default=25)
    given = parser.parse_args()
    table, shown = Table(given.out), given.out.with_suffix(".npz")
    if given.report:
        report(table.rows, dict(np.load(shown)), given.report)
        return
    torch.set_num_threads(1)
    training, held, _ = real_pictures(given.mnist)
    reader, models = reader_of(given.cache, training), open_models(given.runs)
    torch.set_grad_enabled(False)
    measured(table, shown, models, reader, *balanced(held, given.pictures), steps=given.steps)


def measured(
    table: Table, shown: Path, models: Models, reader: ClassifierFeatures, real: Tensor, labels: Tensor, *, steps: int
) -> None:
    """Fill the table, and keep some pictures of every row."""
    truth = models.encoded(real)
    classes = models.writer.config.num_categories
    other = truth.roll(1, 0)  # of another digit
    kept = dict(np.load(shown)) if shown.exists() else {}

    def put(name: str, tokens: Tensor, *, at: Tensor | None = None, given: Tensor | None = None) -> None:
        """A row; `at`: which tokens are counted, `given`: what they were made of, both of truth's shape."""
        found = tokens == truth
        pictures = models.decoded(tokens)
        row = {
            "tokens": _share(found if at is None else found[at]),
            "read": _share(reader.classify(pictures) == labels),
            "pictures": len(tokens),
        }
        if given is not None:
            row |= {"repaired": _share(found[given != truth]), "left alone": _share(found[given == truth])}
        kept[name] = pictures[:SHOWN, 0].numpy()
        np.savez_compressed(shown, **kept)
        table.put(name, row)

    if table.missing(["original"]):
        put("original", truth)
    for half, places in FREE.items():
        free = torch.zeros(truth.shape[1:], dtype=torch.bool)
        free[places] = True
        tasks = {
            "another picture's": lambda free=free: torch.where(free, other, truth),
            **{kind: partial(completed, models, kind, truth, free, steps) for kind in models.diffusion},
            "autoregressive": partial(gone_on, models, truth, free, steps),
        }
        for name in table.missing([f"{half} free, {name}" for name in tasks]):
            put(name, tasks[name.split(", ", 1)[1]](), at=free.expand_as(truth))
    for share in sorted(SHARES, key=lambda one: abs(one - 0.2)):
        x = corrupted(truth, share, classes)
        tasks = {"corrupted": lambda x=x: x}
        tasks |= {name: partial(way, models, x, share, steps) for name, way in RECOVERING.items()}
        for name in table.missing([f"{name}, {share:g}" for name in tasks]):
            put(name, tasks[name.rsplit(", ", 1)[0]](), given=x)


def _share(found: Tensor) -> float:
    return float(found.double().mean())


if __name__ == "__main__":
    main()
