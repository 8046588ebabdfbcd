"""Super-resolution and inpainting with a model that saw neither: how near, how faithful, at what cost; and a picture.

    python benchmarks/inverse.py [--models runs/guidance] [--count 100] [--picture docs/images/inverse.png]

First on Gaussian data, where the exact answer is known: the error of the mean and the spread, in units of the exact
spread. Then on held-out digits with the unconditional digits model: PSNR against the truth, the residual of the
measurement (its noise has a standard deviation of 0.05), and the share that an independent reader, fitted on real
training digits, reads as the digit it was.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from guided import digits, trained
from peers import machine
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import Plan, conditional
from neblina.core.posterior import Gaussian
from neblina.core.shapes import expand
from neblina.data.pictures import to_float, to_uint8
from neblina.evaluation.readers import PixelReader
from neblina.guidance.inverse import moment_matched, posterior_sampled
from neblina.guidance.operators import AveragePool, Mask, Operator
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.grids import make_grid
from neblina.processes.tables import Linear
from neblina.samplers import samplers
from neblina.samplers.drive import sample
from neblina.tasks.inverse import restore
from neblina.tasks.loading import load
from neblina.tasks.plots import Row, plot_rows

NOISE = 0.05
HALF = torch.arange(8).expand(8, 8) < 4
HOLE = ~((torch.arange(8)[:, None] - 3.5).abs().maximum((torch.arange(8) - 3.5).abs()) < 2)
METHODS: dict[str, dict[str, Any]] = {
    "moment-matching, ddpm": {"method": "moment-matching", "noise": NOISE, "steps": 50},
    "moment-matching, dpmpp_2m": {"method": "moment-matching", "noise": NOISE, "steps": 25, "sampler": "dpmpp_2m"},
    "posterior-sampling, ζN = 50": {"steps": 50, "strength": 50.0},
    "posterior-sampling, ζN = 150": {"steps": 50, "strength": 150.0},
    "posterior-sampling, ζN = 250, 250 steps": {"steps": 250, "strength": 250.0},
}


@dataclass(frozen=True)
class Correlated:
    """The exact denoiser of N(0, C) over pictures of 4x4 pixels."""

    process: GaussianProcess
    covariance: Tensor

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        alpha, sigma = self.process.schedule.alpha(t), self.process.schedule.sigma(t)
        values, vectors = torch.linalg.eigh(self.covariance)
        flat = x.flatten(1)
        gain = expand(alpha, flat) * values / (expand(alpha, flat) ** 2 * values + expand(sigma, flat) ** 2)
        return Gaussian(((gain * (flat @ vectors)) @ vectors.T).reshape(x.shape))


def gaussian_table(count: int = 1000, steps: int = 250) -> None:
    """Both methods against the exact conditional of smooth Gaussian pictures."""
    place = torch.arange(16)
    distance = (place[:, None] // 4 - place // 4).abs() + (place[:, None] % 4 - place % 4).abs()
    prior = Correlated(GaussianProcess(Linear()), 0.5 * 0.7 ** distance.double())
    operator = AveragePool(2)
    a = operator(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).flatten(1).T
    noise_variance = 0.1**2 * torch.eye(4, dtype=torch.float64)
    gain = prior.covariance @ a.T @ torch.linalg.inv(a @ prior.covariance @ a.T + noise_variance)
    y = torch.tensor([0.8, -0.3, 0.1, -0.9], dtype=torch.float64)
    mean, spread = gain @ y, (prior.covariance - gain @ a @ prior.covariance).diagonal().sqrt()
    plain, many = conditional(prior, Condition()), y.reshape(1, 1, 2, 2).expand(count, -1, -1, -1)
    schedule = prior.process.schedule
    exact = Correlated(prior.process, prior.covariance - gain @ a @ prior.covariance)

    def drawn(plan: Plan) -> Tensor:
        noise = SampleNoise(0, range(count))
        x = prior.process.prior(noise(torch.empty(count, 1, 4, 4, dtype=torch.float64)))
        times = make_grid("uniform", schedule, steps)
        return sample(samplers["ddpm"](prior.process, x, times, noise=noise), plan).flatten(1)

    plans = {"moment-matching": moment_matched(plain, operator, many, schedule, noise=0.1)}
    for strength in (25.0, 75.0, 250.0, 750.0):
        plans[f"posterior-sampling, ζN = {strength:g}"] = posterior_sampled(
            plain, operator, many, schedule, strength=strength
        )
    print(f"Gaussian pictures, {count} samples, {steps} ddpm steps\n")
    print("| method | error of the mean / exact std | std / exact std |\n| --- | ---: | ---: |")
    for name, plan in plans.items():
        made = drawn(plan)
        off = ((made.mean(0) - mean) / spread).square().mean().sqrt()
        print(f"| {name} | {off:.2f} | {(made.std(0) / spread).mean():.2f} |", flush=True)
    reference = drawn(conditional(exact, Condition()))
    print(f"| the exact conditional denoiser | – | {(reference.std(0) / spread).mean():.2f} |\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, default=Path("runs/guidance"))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--picture", type=Path, default=Path("docs/images/inverse.png"))
    given = parser.parse_args()
    print(f"{machine()}\n")
    gaussian_table()

    model = load(trained("unconditional", given.models), device="cpu")
    training, held = digits()
    assert held.labels is not None
    reader, labels = PixelReader(training), held.labels[: given.count]
    truth = to_float(held.read(range(given.count)))
    problems: dict[str, Operator] = {
        "half the resolution": AveragePool(2),
        "the left half": Mask(HALF),
        "all but a hole": Mask(HOLE),
    }
    shown = slice(0, 10)
    rows = [Row("the truth", to_uint8(truth[shown]))]
    print(f"{given.count} held-out digits\n")
    print("| measured | method | PSNR (dB) | residual | read as the truth |\n| --- | --- | ---: | ---: | ---: |")
    for problem, operator in problems.items():
        clean = operator(truth)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        y = operator.seen(clean + NOISE * noise)
        seen = y if isinstance(operator, Mask) else y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        rows.append(Row(f"measured: {problem}", to_uint8(seen[shown])))
        for name, settings in METHODS.items():
            made = restore(model, y, operator, batch=given.count, **settings)
            psnr = 10 * torch.log10(4 / (made.clamp(-1, 1) - truth).square().mean((1, 2, 3))).mean()
            kept = operator(torch.ones_like(truth)) != 0
            residual = (operator(made) - clean)[kept].square().mean().sqrt()
            agreement = reader.agreement(to_uint8(made), labels)
            print(f"| {problem} | {name} | {psnr:.1f} | {residual:.3f} | {agreement:.0%} |", flush=True)
            if name in ("moment-matching, ddpm", "posterior-sampling, ζN = 150"):
                rows.append(Row(name, to_uint8(made[shown])))
    plot_rows(rows, given.picture, title="Restored by a model of digits that never saw a measurement")


if __name__ == "__main__":
    main()
