"""The closed form of the divergence, against its integral and at its edges."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from neblina.processes.divergences import divergence
from neblina.processes.gaussian import Normal


def one(mean: float, std: float | None) -> Normal:
    return Normal(
        torch.tensor([[mean]], dtype=torch.float64), None if std is None else torch.tensor([std], dtype=torch.float64)
    )


@pytest.mark.parametrize("pair", [(0, 1, 0, 1), (0.3, 0.2, -1, 2), (1, 3, 0, 0.5), (0, 1e-3, 1e-3, 2e-3)])
def test_it_is_the_integral_of_p_log_p_over_q(pair: tuple[float, float, float, float]) -> None:
    m, s, n, r = pair
    p, q = norm(m, s), norm(n, r)
    integral, _ = quad(
        lambda u: p.pdf(u) * (p.logpdf(u) - q.logpdf(u)), m - 12 * s, m + 12 * s, epsabs=1e-13, limit=500
    )
    assert float(divergence(one(m, s), one(n, r))) == pytest.approx(integral, rel=1e-9, abs=1e-12)


def test_independent_entries_add_up_and_a_std_a_sample_is_one_an_entry() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(2, 4, 3, 2, generator=generator, dtype=torch.float64)
    stds = torch.rand(2, 4, generator=generator, dtype=torch.float64) + 0.1
    together = divergence(Normal(means[0], stds[0]), Normal(means[1], stds[1]))
    an_entry = [std[:, None, None].expand(4, 3, 2) for std in stds]
    assert torch.allclose(divergence(Normal(means[0], an_entry[0]), Normal(means[1], an_entry[1])), together)
    assert torch.allclose(divergence(Normal(means[0], an_entry[0]), Normal(means[1], stds[1])), together)
    for row in range(4):
        parts = [
            divergence(one(float(m), float(stds[0, row])), one(float(n), float(stds[1, row])))
            for m, n in zip(means[0, row].flatten(), means[1, row].flatten(), strict=True)
        ]
        assert float(sum(parts)) == pytest.approx(float(together[row]))


def test_a_point_diverges_from_all_but_itself() -> None:
    assert float(divergence(one(1, None), one(1, None))) == 0
    assert float(divergence(one(1, 0), one(1, None))) == 0
    assert float(divergence(one(1, None), one(2, 0))) == math.inf
    assert float(divergence(one(1, None), one(1, 1))) == math.inf
    assert float(divergence(one(1, 1), one(1, None))) == math.inf


def test_its_gradient_is_finite_where_entries_are_points() -> None:
    std = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    mean = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    divergence(Normal(mean, std), Normal(torch.zeros(1, 2, dtype=torch.float64), std)).sum().backward()
    assert mean.grad is not None
    assert bool(mean.grad.isfinite().all())


def test_nearly_equal_distributions_keep_their_digits() -> None:
    """KL = ε² + O(ε³) for σ_P = (1 + ε) σ_Q: 1e-12 here, which r − 1 − log r loses to rounding when written plainly."""
    assert float(divergence(one(0, 1 + 1e-5), one(0, 1))) == pytest.approx(1e-10, rel=1e-4)
