"""Places under every registered sampler: one everywhere is none, and separate halves are sampled separately.

The exact denoiser of pixels that are independent of one another is asked under a condition for each place, so what a
composed canvas must be is known: in each place what that condition alone gives, from the same noise.
"""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from exact import mixture
from models import small_bundle
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import Plan, Query, conditional, evaluate
from neblina.core.posterior import Gaussian
from neblina.core.windows import cover
from neblina.denoisers.oracles import MixtureDenoiser
from neblina.guidance.crops import crops
from neblina.guidance.known import known
from neblina.guidance.regions import Area, regions
from neblina.guidance.settings import Composition, GuidanceSettings, Place
from neblina.processes.continuous import EDM
from neblina.processes.gaussian import Eta, GaussianProcess, Large
from neblina.processes.grids import make_grid
from neblina.processes.schedules import Schedule
from neblina.processes.tables import Linear
from neblina.samplers import Sampler, samplers
from neblina.samplers.drive import sample
from neblina.samplers.generate import Stretch, generate

HEIGHT, WIDTH, COUNT = 2, 4, 3
LEFT = torch.zeros(HEIGHT, WIDTH)
LEFT[:, :2] = 1


@dataclass(frozen=True)
class Pixels:
    """The exact denoiser of a mixture, whose pixels are mixtures apart; a label picks a component."""

    mixture: MixtureDenoiser

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Gaussian:
        each = x[0].numel()
        assert condition.labels is not None
        labels = condition.labels.repeat_interleave(each)
        answered = self.mixture.posterior(x.reshape(-1, 1), t.repeat_interleave(each), Condition(labels))
        return Gaussian(answered.mean.reshape(x.shape), variance_fraction=torch.full_like(x, 0.5))


def of(denoiser: Pixels, label: int) -> Plan:
    return conditional(denoiser, Condition(torch.full((COUNT,), label)))


def halves(denoiser: Pixels) -> Plan:
    return regions(of(denoiser, 0), [Area(of(denoiser, 1), LEFT)])


def walked(sampler: Sampler, plan: Plan, schedule: Schedule, *, steps: int = 6, start: Tensor | None = None) -> Tensor:
    process, noise = GaussianProcess(schedule), SampleNoise(1, range(COUNT))
    times = make_grid(sampler.grid, schedule, steps)
    x = noise(torch.empty(COUNT, 1, HEIGHT, WIDTH, dtype=torch.float64))
    if start is not None:
        times = times[times <= 0.6]
        x = process.diffuse(start, x, times[0].expand(COUNT))
    return sample(sampler(process, x, times, noise=noise), plan)


# these look at a whole sample to choose a step or its size, so its halves are not walked apart
_WHOLE = ("predictor_corrector", "annealed_langevin")
apart = pytest.mark.parametrize(
    "sampler",
    [one for name, one in samplers.items() if name == one.name and not one.adaptive and name not in _WHOLE],
    ids=lambda sampler: sampler.name,
)


@apart
@pytest.mark.parametrize("schedule", [Linear(), EDM()], ids=["linear", "edm"])
def test_two_halves_are_sampled_as_if_each_were_alone(sampler: Sampler, schedule: Schedule) -> None:
    denoiser = Pixels(mixture(GaussianProcess(schedule)))
    composed = walked(sampler, halves(denoiser), schedule)
    left, right = (walked(sampler, of(denoiser, label), schedule) for label in (1, 0))
    assert torch.allclose(composed[..., :2], left[..., :2], atol=1e-9)
    assert torch.allclose(composed[..., 2:], right[..., 2:], atol=1e-9)
    assert float((left - right).abs().mean()) > 0.05


@apart
def test_so_are_they_in_windows_from_a_picture_and_around_what_is_known(sampler: Sampler) -> None:
    schedule = Linear()
    denoiser, start = Pixels(mixture(GaussianProcess(schedule))), torch.full((COUNT, 1, HEIGHT, WIDTH), 0.3).double()
    data, free = torch.rand_like(start), torch.ones(1, 1, HEIGHT, WIDTH)
    free[..., 0, :] = 0
    cut = regions(crops(of(denoiser, 0), size=2, overlap=1), [Area(crops(of(denoiser, 1), size=3, overlap=1), LEFT)])
    composed = walked(sampler, known(cut, data, free), schedule, start=start)
    left, right = (walked(sampler, known(of(denoiser, n), data, free), schedule, start=start) for n in (1, 0))
    assert torch.allclose(composed[..., :2], left[..., :2], atol=1e-9)
    assert torch.allclose(composed[..., 2:], right[..., 2:], atol=1e-9)


@pytest.mark.parametrize("name", list(samplers))
def test_one_place_everywhere_is_plain_sampling_to_the_last_bit(name: str) -> None:
    """The same of one window that holds the canvas; multistep samplers keep one state either way."""
    bundle = small_bundle(
        classes=3, schedule="cosine", parameterisation="v", learned_variance=samplers[name].learned_variance
    )
    given = {"condition": Condition(torch.tensor([2])), "sampler": name, "steps": 6}
    chosen, shape = samplers[name], (3, 8, 8)
    settings = {"tolerance": 0.5} if chosen.adaptive else {}
    plain = GuidanceSettings(2.0, clip=1.0)
    place = Place(Condition(torch.tensor([2])), torch.ones(8, 8), cover=cover((8, 8), 8, 2))
    composed = GuidanceSettings(2.0, clip=1.0, composition=Composition((place,)))
    under = {**given, "condition": Condition(torch.tensor([0]))}
    one = generate(bundle.denoiser(), shape, [5], guidance=plain, settings=settings, **given)
    other = generate(bundle.denoiser(), shape, [5], guidance=composed, settings=settings, **under)
    assert torch.equal(one, other)


@pytest.mark.parametrize("variance", [Eta(0.0), Eta(1.0), Large()], ids=["ddim", "ddpm", "large"])
def test_fusing_beliefs_is_the_authors_averaging_of_the_next_step(variance: Eta | Large, schedule: Schedule) -> None:
    """Σ w_i Φ(x_t, belief_i) = Φ(x_t, Σ w_i belief_i) where Φ is affine in the belief, with noise that is shared."""
    process = GaussianProcess(schedule)
    denoiser = Pixels(mixture(process))
    masks = [LEFT.double() * 0.5, torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)).double()]
    plans = [of(denoiser, number) for number in range(3)]
    fused = regions(plans[0], [Area(plan, mask) for plan, mask in zip(plans[1:], masks, strict=True)])
    counts = torch.stack([(1 - sum(masks)).clamp(min=0), *masks])
    weights = counts / counts.sum(0)
    x = torch.randn(COUNT, 1, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for t, s in pairwise(make_grid("log_snr", schedule, 8)):
        each_t, each_s = t.expand(COUNT), s.expand(COUNT)
        query, noises = Query(x, each_t), [SampleNoise(3, range(COUNT)) for _ in range(4)]

        def stepped(plan: Plan, noise: SampleNoise, query: Query = query, s: Tensor = each_s) -> Tensor:
            belief = evaluate(plan, query)
            return process.reverse(query.x, query.t, s, belief, variance=variance).sample(noise)

        averaged = sum(w * stepped(plan, noise) for w, plan, noise in zip(weights, plans, noises, strict=False))
        following = stepped(fused, noises[3])
        assert torch.allclose(following, averaged, rtol=1e-12, atol=1e-12)
        x = following


def test_a_composition_starts_from_a_picture_like_any_walk() -> None:
    bundle = small_bundle(classes=3, schedule="cosine", parameterisation="v")
    place = Place(Condition(torch.tensor([2])), torch.ones(8, 8))
    given = {"sampler": "dpmpp_2m", "steps": 8, "stretch": Stretch(torch.zeros(1, 3, 8, 8), 0.5)}
    under = GuidanceSettings(composition=Composition((place,)))
    one = generate(bundle.denoiser(), (3, 8, 8), [0], condition=Condition(torch.tensor([2])), **given)
    other = generate(bundle.denoiser(), (3, 8, 8), [0], condition=Condition(torch.tensor([0])), guidance=under, **given)
    assert torch.equal(one, other)
