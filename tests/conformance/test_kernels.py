"""Every registered kernel, held to brute force with its transitions written out as matrices."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from neblina.core.errors import DataError, SettingError
from neblina.core.logs import ZERO, is_zero
from neblina.core.noise import SampleNoise
from neblina.core.posterior import Categorical
from neblina.processes.dense_kernels import DiscretisedGaussian, NearestNeighbours
from neblina.processes.discrete import DiscreteProcess, divergence, one_hot, padded
from neblina.processes.draws import drawn
from neblina.processes.kernels import Kernel, absorbing, kernels, make_kernel, mask_and_replace, uniform
from neblina.processes.survival import information, mutual_information, survivals

D = torch.float64
_TABLE = {"alphas": (0.7, 0.3, 0.05, 0.0), "unmasked": (0.8, 0.5, 0.2, 0.0)}


def _embeddings(classes: int) -> Tensor:
    return torch.randn(classes, 3, generator=torch.Generator().manual_seed(0))


_MADE: dict[str, Callable[[int], Kernel]] = {
    "uniform": lambda k: uniform(k),
    "absorbing": lambda k: absorbing(k),
    "mask-and-replace": lambda k: mask_and_replace(k, masked=0.8),
    "discretised-gaussian": lambda k: DiscretisedGaussian(k, steps=4, beta_start=2e-4, beta_end=2e-3),
    "nearest-neighbours": lambda k: NearestNeighbours(_embeddings(k), neighbours=max(1, k - 2)),
}
_ALL = {
    **_MADE,
    "table": lambda k: mask_and_replace(k, **_TABLE),
    "cosine": lambda k: mask_and_replace(k, "cosine", 0.5),
    "even": lambda k: uniform(k, "mutual-information"),
}
every_kernel = pytest.mark.parametrize("name", [name for name in _ALL if name != "even"])  # a schedule, and a slow one
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
STRIDES = [(s, t) for s, t in product(TIMES, TIMES) if s < t]


def _kernel(name: str, classes: int = 4) -> Kernel:
    return _ALL[name](classes)


def _time(t: float, count: int = 1) -> Tensor:
    return torch.full((count,), t, dtype=D)


def _matrix(kernel: Kernel, s: float, t: float) -> Tensor:
    """Q_{s→t}, by pushing every state."""
    start = one_hot(torch.arange(kernel.states), kernel.states, D)
    return kernel.push(start, _time(s, kernel.states), _time(t, kernel.states)).exp()


def _belief(kernel: Kernel, shape: tuple[int, ...], seed: int = 0) -> Categorical:
    drawn = torch.randn(*shape, kernel.classes, generator=torch.Generator().manual_seed(seed), dtype=D)
    return Categorical((3 * drawn).log_softmax(-1))


def test_every_registered_kernel_is_here() -> None:
    assert set(kernels) == set(_MADE)


@every_kernel
def test_transitions_are_probabilities_and_obey_chapman_kolmogorov(name: str) -> None:
    kernel = _kernel(name)
    for s, t in STRIDES:
        whole = _matrix(kernel, s, t)
        assert torch.allclose(whole.sum(1), torch.ones(kernel.states, dtype=D), atol=1e-12)
        for u in TIMES:
            if s < u < t:
                assert torch.allclose(_matrix(kernel, s, u) @ _matrix(kernel, u, t), whole, atol=1e-12)


@every_kernel
def test_a_column_is_a_column_of_the_matrix(name: str) -> None:
    kernel = _kernel(name)
    ends = torch.arange(kernel.states)
    for s, t in [*STRIDES, (0.5, 0.5)]:
        columns = kernel.column(ends, _time(s, kernel.states), _time(t, kernel.states), D).exp()
        assert torch.allclose(columns, _matrix(kernel, s, t).T, atol=1e-12)


@every_kernel
def test_going_nowhere_changes_nothing(name: str) -> None:
    kernel = _kernel(name)
    for t in TIMES:
        assert torch.allclose(_matrix(kernel, t, t), torch.eye(kernel.states, dtype=D), atol=1e-12)


@every_kernel
def test_each_sample_has_its_own_times(name: str) -> None:
    kernel = _kernel(name)
    x = torch.arange(kernel.classes).repeat(3, 1)
    s, t = torch.tensor([0.0, 0.25, 0.5], dtype=D), torch.tensor([0.5, 1.0, 0.75], dtype=D)
    for number in range(3):
        alone = kernel.column(x[number : number + 1], s[number : number + 1], t[number : number + 1], D)
        assert torch.allclose(kernel.column(x, s, t, D)[number], alone[0], atol=1e-12)


@every_kernel
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_way_back_is_bayes_rule(name: str, classes: int) -> None:
    if name == "nearest-neighbours" and classes == 2:
        classes = 4
    kernel = _kernel(name, classes)
    process = DiscreteProcess(kernel)
    for s, t in STRIDES:
        early, late, whole = _matrix(kernel, 0, s), _matrix(kernel, s, t), _matrix(kernel, 0, t)
        x = torch.arange(kernel.states)
        belief = _belief(kernel, (kernel.states,))
        projected = torch.zeros(kernel.states, kernel.classes, dtype=D)
        expected = torch.zeros(kernel.states, kernel.states, dtype=D)
        for end in range(kernel.states):
            weights = belief.log_probs[end].exp() * (whole[: kernel.classes, end] > 1e-300)
            if weights.sum() == 0:  # a state that no class leads to
                continue
            projected[end] = weights / weights.sum()
            for x0 in range(kernel.classes):
                if projected[end, x0] > 0:
                    back = early[x0] * late[:, end] / whole[x0, end]
                    expected[end] += projected[end, x0] * back
        reached = projected.sum(1) > 0
        times = _time(t, kernel.states), _time(s, kernel.states)
        found = process.reverse(x, *times, belief)
        assert torch.allclose(found.log_belief.exp()[reached], projected[reached], atol=1e-12)
        assert torch.allclose(found.log_probs.exp()[reached], expected[reached], atol=1e-10)


@every_kernel
def test_draws_on_the_way_back_follow_the_law(name: str) -> None:
    kernel = _kernel(name)
    process, count = DiscreteProcess(kernel), 4000
    grid = (torch.arange(count, dtype=D) + 0.5) / count
    for s, t in STRIDES:
        whole = _matrix(kernel, 0, t)
        for end, x0 in product(range(kernel.states), range(kernel.classes)):
            if whole[x0, end] < 1e-300:
                continue
            x, clean = torch.full((1, count), end), torch.full((1, count), x0)
            found = kernel.bridge(x, clean, _time(t), _time(s), grid[None])
            shares = torch.bincount(found[0], minlength=kernel.states).double() / count
            law = process.truth(clean[:, :1], x[:, :1], _time(t), _time(s), D)[0, 0].exp()
            assert torch.allclose(shares, law, atol=kernel.states * 1.5 / count)


@every_kernel
def test_draws_forward_follow_the_law(name: str) -> None:
    kernel, count = _kernel(name), 4000
    grid = (torch.arange(count, dtype=D) + 0.5) / count
    for s, t in STRIDES:
        rows = _matrix(kernel, s, t)
        for start in range(kernel.states):
            found = kernel.jump(torch.full((1, count), start), _time(s), _time(t), grid[None])
            shares = torch.bincount(found[0], minlength=kernel.states).double() / count
            assert torch.allclose(shares, rows[start], atol=kernel.states * 1.5 / count)


@every_kernel
def test_at_the_end_every_token_is_of_the_prior(name: str) -> None:
    kernel = _kernel(name)
    if name == "discretised-gaussian":
        kernel = DiscretisedGaussian(4, steps=60, beta_start=0.1, beta_end=0.2)
    end = _matrix(kernel, 0.0, 1.0)[: kernel.classes]
    assert torch.allclose(
        end, kernel.prior().exp().expand_as(end), atol=2e-4 if name == "discretised-gaussian" else 1e-12
    )
    drawn = DiscreteProcess(kernel).prior((2, 2000), SampleNoise(0, [0, 1]))
    shares = torch.bincount(drawn.flatten(), minlength=kernel.states).double() / drawn.numel()
    assert torch.allclose(shares, kernel.prior().exp(), atol=0.03)


@pytest.mark.parametrize("name", ["uniform", "absorbing", "mask-and-replace", "even"])
@pytest.mark.parametrize(("s", "t"), [(0.0, 1e-9), (0.0, 1.0), (0.5, 0.5 + 1e-9), (1 - 1e-9, 1.0), (0.3, 0.7)])
def test_large_codebooks_neither_underflow_nor_turn_into_nothing(name: str, s: float, t: float) -> None:
    kernel = _kernel(name, 16384)
    process = DiscreteProcess(kernel)
    belief = Categorical(torch.randn(1, 4, 16384, generator=torch.Generator().manual_seed(0)).log_softmax(-1))
    belief.log_probs.requires_grad_()
    clean = torch.tensor([[0, 2, 5, 7]])
    seen = process.diffuse(clean, torch.rand(1, 4, generator=torch.Generator().manual_seed(1), dtype=D), _time(t))
    back = process.reverse(seen, _time(t), _time(s), belief).log_probs
    truth = process.truth(clean, seen, _time(t), _time(s))
    assert back.dtype == torch.float32
    assert bool(back.isfinite().all())
    assert bool(truth.isfinite().all())
    assert torch.allclose(back.exp().sum(-1), torch.ones(1, 4), atol=1e-3)
    divergence(truth, back).sum().backward()
    assert belief.log_probs.grad is not None
    assert bool(belief.log_probs.grad.isfinite().all())


@pytest.mark.parametrize("step", [1, 2, 3, 10, 20])
def test_256_levels_go_back_by_the_law_though_some_could_hardly_have_led_here(step: int) -> None:
    """Beside brute force in logarithms: a level far away is e^-180 as likely to have led here as one nearby."""
    kernel = DiscretisedGaussian(256, steps=20, beta_start=2e-5, beta_end=4e-3)
    process, t, s = DiscreteProcess(kernel), _time(step / 20), _time((step - 1) / 20)
    x0 = torch.tensor([[0, 100, 255]])
    x = process.diffuse(x0, torch.rand(1, 3, generator=torch.Generator().manual_seed(0), dtype=D), t)
    levels = torch.linspace(-1, 1, 256)
    belief = (-(levels - levels[x][..., None]).abs() / 0.2).log_softmax(-1).requires_grad_()
    found = process.reverse(x, t, s, Categorical(belief)).log_probs
    came, one = kernel.cumulative[step][:, x[0]].T, kernel.matrices[step - 1]
    could = belief[0].double().masked_fill(came <= 1e-80, -torch.inf).log_softmax(-1)
    for place in range(3):
        each = one[:, x[0, place]].log() + kernel.cumulative[step - 1].log()  # of every x_0, in rows
        wanted = torch.logsumexp(could[place][:, None] + each.log_softmax(-1).nan_to_num(-torch.inf), 0)
        near = wanted > -30
        assert torch.allclose(found[0, place].double()[near], wanted[near], atol=1e-4)
    assert torch.allclose(found.exp().sum(-1), torch.ones(1, 3), atol=1e-5)
    divergence(process.truth(x0, x, t, s), found).sum().backward()
    assert belief.grad is not None
    assert bool(belief.grad.isfinite().all())


@every_kernel
def test_divergences_equal_sums_of_ratios(name: str) -> None:
    kernel = _kernel(name)
    process = DiscreteProcess(kernel)
    for s, t in STRIDES:
        x0 = torch.arange(kernel.classes)[:, None]
        x = process.diffuse(x0, torch.full_like(x0, 0.5, dtype=D), _time(t, kernel.classes))
        belief = _belief(kernel, tuple(x.shape))
        times = _time(t, kernel.classes), _time(s, kernel.classes)
        p = process.truth(x0, x, *times, D)
        q = process.reverse(x, *times, belief).log_probs
        found = divergence(p, q)
        by_hand = torch.zeros(kernel.classes, dtype=D)
        for row in range(kernel.classes):
            for state in range(kernel.states):
                if not is_zero(p[row, 0, state]):
                    by_hand[row] += p[row, 0, state].exp() * (p[row, 0, state] - q[row, 0, state])
        assert torch.allclose(found, by_hand, atol=1e-12)
        assert bool((found >= -1e-12).all())
        exact = Categorical(one_hot(x0, kernel.classes, D))
        none = divergence(p, process.reverse(x, *times, exact).log_probs)
        assert float(none.abs().max()) < 1e-9


def test_the_joint_form_is_d3pms_formula_and_the_law_of_the_absorbing_kernel_alone() -> None:
    for name in _ALL:
        kernel = _kernel(name)
        process = DiscreteProcess(kernel)
        s, t = 0.25, 0.75
        x = torch.arange(kernel.classes)
        belief = _belief(kernel, (kernel.classes,))
        times = _time(t, kernel.classes), _time(s, kernel.classes)
        projected = padded(process.project(belief, x, times[0]).log_probs, kernel.states).exp()
        by_hand = _matrix(kernel, s, t).T[x] * (projected @ _matrix(kernel, 0, s))
        by_hand = by_hand / by_hand.sum(1, keepdim=True)
        found = process.joint(x, *times, belief)
        assert torch.allclose(found.exp(), by_hand, atol=1e-12)
        same = torch.allclose(found.exp(), process.reverse(x, *times, belief).log_probs.exp(), atol=1e-6)
        assert same == (name == "absorbing")


def test_the_even_schedule_loses_information_at_an_even_pace() -> None:
    t = torch.linspace(0, 1, 11, dtype=D)
    for classes in (2, 27, 16384):
        told = information(mutual_information(t, classes), classes) / math.log(classes)
        assert torch.allclose(told, 1 - t, atol=1e-9)


@pytest.mark.parametrize("name", list(survivals))
def test_every_survival_falls_from_everything_to_nothing(name: str) -> None:
    t = torch.linspace(0, 1, 101, dtype=D)
    kept = survivals[name](t, 5)
    assert float(kept[0]) == 1
    assert float(kept[-1]) == 0
    assert bool((kept.diff() < 0).all())


def test_a_number_falls_on_the_class_whose_share_it_lies_in() -> None:
    logs = torch.tensor([[0.0, 0.5, 0.0, 0.3, 0.2]], dtype=D).log().clamp(min=ZERO)
    for place, expected in ((0.0, 1), (0.4999, 1), (0.5001, 3), (0.7999, 3), (0.8001, 4), (1 - 1e-13, 4)):
        assert int(drawn(logs, torch.tensor([place], dtype=D))) == expected


@pytest.mark.parametrize("classes", [256, 300, 1000])
def test_among_many_classes_the_same_law_is_drawn(classes: int) -> None:
    logs = (3 * torch.randn(classes, generator=torch.Generator().manual_seed(0), dtype=D)).log_softmax(0)
    logs[5:150] = ZERO
    logs = logs.log_softmax(0).clamp(min=ZERO)
    count = 200_000
    grid = (torch.arange(count, dtype=D) + 0.5) / count
    found = drawn(logs.expand(count // 50, classes)[None], grid[None, ::50])[0]
    shares = torch.bincount(found, minlength=classes).double() / len(found)
    assert torch.allclose(shares, logs.exp(), atol=2 / len(found))
    assert float(shares[5:150].sum()) == 0


def test_neighbours_are_those_in_embedding_space() -> None:
    line = torch.arange(6.0)[:, None]
    near = _matrix(NearestNeighbours(line, neighbours=2), 0.0, 0.05)
    assert near[2, 3] > 10 * near[2, 5]
    assert torch.allclose(near, near.T, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(1), "two classes or more, not 1"),
        (lambda: mask_and_replace(4, masked=1.0), "uniform and absorbing"),
        (lambda: mask_and_replace(4, alphas=(0.5, 0.0), unmasked=(0.0, 0.0)), "the mask has taken every token"),
        (lambda: mask_and_replace(4, alphas=(0.5, 0.4), unmasked=(0.4, 0.4)), "β would be below 0"),
        (lambda: mask_and_replace(4, alphas=(0.5, 0.6), unmasked=(0.9, 0.8)), "falls from 1"),
        (lambda: absorbing(4, "cosin"), "cosine"),
        (lambda: DiscretisedGaussian(4, beta_start=0.5, beta_end=0.1), "rise from above 0"),
        (lambda: NearestNeighbours(_embeddings(5), neighbours=5), "1 … 4"),
        (lambda: NearestNeighbours(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), neighbours=1), "never reached"),
        (lambda: make_kernel("uniform", classes=4, masks=1), "does not have these settings"),
    ],
)
def test_what_is_no_kernel_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def test_times_between_steps_are_refused_where_there_are_steps() -> None:
    with pytest.raises(SettingError, match=r"multiples of 1/4, and 0\.3 is none"):
        _kernel("discretised-gaussian").column(torch.zeros(1, 1, dtype=torch.int64), _time(0.0), _time(0.3))


@pytest.mark.parametrize(
    ("token", "message"), [(4, "the mask, which is never data"), (-1, "none of them"), (7, "none of them")]
)
def test_tokens_that_are_no_data_are_refused(token: int, message: str) -> None:
    with pytest.raises(DataError, match=f"token {token} is {message}: classes are 0 … 3"):
        DiscreteProcess(absorbing(4)).diffuse(torch.tensor([[0, token]]), torch.zeros(1, 2), _time(0.5))


def test_settings_come_back_from_what_a_kernel_says_of_itself() -> None:
    for name in ("uniform", "absorbing", "mask-and-replace", "table", "cosine", "discretised-gaussian"):
        kernel = _kernel(name)
        again = make_kernel(**kernel.config())
        assert torch.allclose(_matrix(kernel, 0.25, 0.75), _matrix(again, 0.25, 0.75), atol=1e-12)
