"""Every registered sampler of tokens, held to laws that are enumerated."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.errors import SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import Query, conditional
from neblina.core.posterior import Categorical
from neblina.denoisers.oracles import gaussian_denoiser
from neblina.denoisers.token_oracles import EnumeratedDenoiser
from neblina.objectives.categorical import bound_terms, prior_loss, step_loss
from neblina.processes.dense_kernels import DiscretisedGaussian, NearestNeighbours
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.kernels import Kernel, absorbing, mask_and_replace, uniform
from neblina.processes.schedules import make_schedule
from neblina.samplers import samplers, token_samplers
from neblina.samplers.drive import Run, drive, sample
from neblina.samplers.tokens import masked_share

D = torch.float64
K = 3
KERNELS: dict[str, Kernel] = {
    "uniform": uniform(K),
    "absorbing": absorbing(K),
    "mask-and-replace": mask_and_replace(K, masked=0.8),
    "discretised-gaussian": DiscretisedGaussian(K, steps=24, beta_start=0.1, beta_end=0.2),
    "nearest-neighbours": NearestNeighbours(torch.tensor([[0.0], [1.0], [3.0]]), neighbours=1),
}
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=D)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_sampler = pytest.mark.parametrize("name", list(token_samplers))
POINTS = torch.tensor([[0, 0], [1, 1], [2, 1], [2, 2]])
OF_POINTS = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=D)


def _one_token(process: DiscreteProcess) -> EnumeratedDenoiser:
    return EnumeratedDenoiser(process, torch.arange(K)[:, None], WEIGHTS)


def _grid(steps: int) -> Tensor:
    return torch.linspace(1, 0, steps + 1, dtype=D)


def _walks_on(name: str, kernel: Kernel) -> bool:
    try:
        token_samplers[name].check_process(DiscreteProcess(kernel))
    except SettingError:
        return False
    return True


def _sampled(name: str, denoiser: EnumeratedDenoiser, times: Tensor, count: int, tokens: int) -> Tensor:
    process = denoiser.process
    noise = SampleNoise(0, [0])
    whole = process.prior((1, count * tokens), noise).reshape(count, tokens)
    few = _Shared(0)
    walk = token_samplers[name](process, whole, times, noise=few)
    return sample(walk, conditional(denoiser, Condition()))


class _Shared(SampleNoise):
    """Noise of many samples at once, for laws alone."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, [0])

    def __call__(self, like: Tensor) -> Tensor:
        return super().__call__(like[None])[0]


@every_kernel
@pytest.mark.parametrize("steps", [1, 2, 6, 24])
def test_a_token_by_itself_follows_the_law_of_the_process_at_every_stride(kernel: str, steps: int) -> None:
    process = DiscreteProcess(KERNELS[kernel])
    denoiser, states = _one_token(process), process.kernel.states
    x = torch.arange(states)[:, None]
    law = process.kernel.prior().exp()
    for t, s in pairwise(_grid(steps)):
        times = t.expand(states), s.expand(states)
        belief = denoiser.posterior(x, times[0], Condition())
        law = law @ process.reverse(x, *times, belief).log_probs[:, 0].exp()
        clean = torch.arange(K)[:, None]
        truth = WEIGHTS @ process.marginal(clean, s.expand(K), D)[:, 0].exp()
        assert torch.allclose(law, truth, atol=1e-6)


@every_sampler
@every_kernel
def test_a_token_by_itself_ends_as_the_data_is(name: str, kernel: str) -> None:
    if not _walks_on(name, KERNELS[kernel]) or (name == "joint" and kernel != "absorbing"):
        return
    count = 6000
    settings = {"purity": {"sharpness": 0.0}, "confidence": {"temperature": 0.0}}.get(name, {})
    process = DiscreteProcess(KERNELS[kernel])
    denoiser, noise = _one_token(process), _Shared(1)
    start = process.prior((count, 1), noise)
    walk = token_samplers[name](process, start, _grid(24), noise=noise, **settings)
    ended = sample(walk, conditional(denoiser, Condition()))
    shares = torch.bincount(ended[:, 0], minlength=K).double() / count
    slack = 0.03 if name == "tau_leaping" else 0.0
    assert float((shares - WEIGHTS).abs().max()) < 4 * (0.25 / count) ** 0.5 + slack


@every_sampler
@pytest.mark.parametrize("kernel", ["uniform", "absorbing", "mask-and-replace", "nearest-neighbours"])
def test_more_evaluations_bring_dependent_tokens_nearer_to_their_law(name: str, kernel: str) -> None:
    if not _walks_on(name, KERNELS[kernel]) or (name == "joint" and kernel != "absorbing"):
        return
    count = 4000
    process = DiscreteProcess(KERNELS[kernel])
    denoiser = EnumeratedDenoiser(process, POINTS, OF_POINTS)
    settings = {"purity": {"sharpness": 0.0}, "confidence": {"temperature": 1e6}}.get(name, {})
    truth = torch.zeros(K, K, dtype=D).index_put((POINTS[:, 0], POINTS[:, 1]), OF_POINTS)
    apart = []
    for steps in (1, 3, 16):
        noise = _Shared(2)
        start = process.prior((count, 2), noise)
        walk = token_samplers[name](process, start, _grid(steps), noise=noise, **settings)
        ended = sample(walk, conditional(denoiser, Condition()))
        shares = torch.bincount(ended[:, 0] * K + ended[:, 1], minlength=K * K).double() / count
        apart.append(float((shares.reshape(K, K) - truth).abs().sum() / 2))
    assert apart[0] > 0.3  # tokens that are drawn at once are independent
    assert apart[1] < 0.8 * apart[0]
    assert apart[2] < 0.4 * apart[0]


class _Evenly:
    """Believes in nothing, of a codebook of some size."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def posterior(self, x: Tensor, t: Tensor, condition: Condition) -> Categorical:
        return Categorical(torch.zeros(*x.shape, self.classes).log_softmax(-1))


@every_sampler
@pytest.mark.parametrize("steps", [100, 50, 25, 10, 5])
@pytest.mark.parametrize("kernel", [absorbing(2), mask_and_replace(2, "cosine", 0.9)], ids=["absorbing", "both"])
def test_before_every_step_as_many_tokens_are_masked_as_in_theory(name: str, steps: int, kernel: Kernel) -> None:
    if name == "joint" and kernel.config()["name"] != "absorbing":
        return
    process, shares = DiscreteProcess(kernel), []
    noise = SampleNoise(0, [0])
    walk = token_samplers[name](process, process.prior((1, 20000), noise), _grid(steps), noise=noise)
    plan = conditional(_Evenly(2), Condition())

    def look(step: object) -> None:
        shares.append(float((step.query.x == 2).double().mean()))  # type: ignore[attr-defined]

    ended = sample(walk, plan, on_step=look)
    theory = masked_share(process, _grid(steps)[:-1])
    if token_samplers[name].masked:
        theory[0] = 1  # they begin with masks alone
    slack = 0.03 if name == "tau_leaping" else 0.01
    assert float((torch.tensor(shares, dtype=D) - theory).abs().max()) < slack
    assert int(ended.max()) < 2


@every_sampler
def test_a_sample_is_the_same_whatever_its_company(name: str) -> None:
    process = DiscreteProcess(absorbing(K))
    plan = conditional(EnumeratedDenoiser(process, POINTS, OF_POINTS), Condition())

    def made(indices: list[int]) -> Tensor:
        noise = SampleNoise(3, indices)
        walk = token_samplers[name](process, process.prior((len(indices), 2), noise), _grid(5), noise=noise)
        return sample(walk, plan)

    together = made([0, 1, 2, 3])
    assert torch.equal(made([2]), together[2:3])
    assert torch.equal(made([3, 1]), together[[3, 1]])


@every_sampler
@every_kernel
def test_samples_may_have_grids_of_their_own_and_stand_still(name: str, kernel: str) -> None:
    if not _walks_on(name, KERNELS[kernel]):
        return
    process = DiscreteProcess(KERNELS[kernel])
    times = torch.tensor([[1.0, 1.0], [0.5, 1.0], [0.5, 0.25], [0.0, 0.0]], dtype=D)
    noise = SampleNoise(0, [0, 1])
    walk = token_samplers[name](process, process.prior((2, 2), noise), times, noise=noise)
    ended = sample(walk, conditional(EnumeratedDenoiser(process, POINTS, OF_POINTS), Condition()))
    assert int(ended.max()) < K
    if name in ("ancestral", "joint"):
        still = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=D)
        x = torch.tensor([[0, 1], [1, 2]])
        kept = sample(
            token_samplers[name](process, x, still, noise=noise),
            conditional(EnumeratedDenoiser(process, POINTS, OF_POINTS), Condition()),
        )
        assert torch.equal(kept, x)


def test_tokens_and_pictures_walk_in_one_driver() -> None:
    process, pictures = DiscreteProcess(absorbing(K)), GaussianProcess(make_schedule("cosine"))
    noise = SampleNoise(3, [0, 1])
    tokens = token_samplers["ancestral"](process, process.prior((2, 2), noise), _grid(5), noise=noise)
    alone = token_samplers["ancestral"](
        process, process.prior((2, 2), SampleNoise(3, [0, 1])), _grid(5), noise=SampleNoise(3, [0, 1], draw=1)
    )
    plan = conditional(EnumeratedDenoiser(process, POINTS, OF_POINTS), Condition())
    numbers = samplers["ddim"](pictures, torch.randn(2, 1, dtype=D), _grid(8))
    of_numbers = conditional(gaussian_denoiser(pictures, 0.3, 0.1), Condition())
    first, second = drive([Run(tokens, plan), Run(numbers, of_numbers)])
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    assert torch.equal(first, sample(alone, plan))
    assert second.is_floating_point()


@every_kernel
@pytest.mark.parametrize("steps", [1, 3, 24])
def test_the_bound_of_an_exact_belief_is_the_likelihood(kernel: str, steps: int) -> None:
    process = DiscreteProcess(KERNELS[kernel])
    denoiser, states = _one_token(process), process.kernel.states
    x = torch.arange(states)[:, None]
    for token in range(K):
        x0 = torch.tensor([[token]])
        total = prior_loss(process, x0)
        for t, s in pairwise(_grid(steps)):
            belief = denoiser.posterior(x, t.expand(states), Condition())
            reached = process.marginal(x0, t[None], D)[0, 0].exp()
            loss = step_loss(process, x0.expand(states, 1), x, t.expand(states), s.expand(states), belief)
            total = total + torch.where(reached > 0, reached * loss.bound, 0.0).sum()
        assert float((total + WEIGHTS[token].log()).abs()) < 1e-6


def test_the_bound_is_above_the_entropy_of_dependent_tokens_and_falls_towards_it() -> None:
    process = DiscreteProcess(absorbing(K))
    plan = conditional(EnumeratedDenoiser(process, POINTS, OF_POINTS), Condition())
    entropy = float(torch.special.entr(OF_POINTS).sum())
    means = []
    for steps in (1, 4, 32):
        rows = POINTS.repeat_interleave((OF_POINTS * 600).round().long(), 0)
        terms = bound_terms(process, plan, rows, steps, steps, SampleNoise(0, range(len(rows))))
        assert terms.shape == (600, steps + 1)
        means.append(float(terms.sum(1).mean()))
    assert means[0] > means[1] > means[2] > entropy - 0.05
    assert means[2] < entropy + 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: token_samplers["purity"](DiscreteProcess(uniform(K)), *_start(), noise=_Shared(0)), "has no mask"),
        (
            lambda: token_samplers["tau_leaping"](
                DiscreteProcess(KERNELS["discretised-gaussian"]), *_start(), noise=_Shared(0)
            ),
            "continuous time",
        ),
        (lambda: samplers["ddim"](DiscreteProcess(uniform(K)), *_start()), "GaussianProcess"),  # type: ignore[arg-type]
        (lambda: token_samplers["ancestrel"], "ancestral"),
        (
            lambda: next(
                token_samplers["confidence"](
                    DiscreteProcess(absorbing(K)), *_start(), noise=_Shared(0), temperature=-1.0
                )
            ),
            "at least 0",
        ),
        (
            lambda: token_samplers["purity"](DiscreteProcess(absorbing(K)), *_start(), noise=_Shared(0), sharp=1.0),
            "sharpness",
        ),
    ],
)
def test_what_cannot_be_walked_is_refused(make: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()  # type: ignore[operator]


def _start() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 2, dtype=torch.int64), _grid(3)


def test_a_query_about_tokens_keeps_them_whole_numbers() -> None:
    process = DiscreteProcess(absorbing(K))
    walk = token_samplers["ancestral"](process, *_start(), noise=SampleNoise(0, [0]))
    query = next(walk)
    assert isinstance(query, Query)
    assert query.x.dtype == torch.int64
