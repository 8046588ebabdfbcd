"""What a network predicts is told from its answers: exact denoisers, networks that were trained, random ones."""

import pytest
import torch
from models import small_bundle
from sabotages import learned
from torch import Tensor, nn

from neblina.core.conditions import Condition
from neblina.core.shapes import expand
from neblina.data.pictures import to_float
from neblina.data.sources import digits
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.oracles import MixtureDenoiser, dataset_denoiser, gaussian_denoiser
from neblina.denoisers.parameterisations import parameterisations
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.schedules import make_schedule
from neblina.tasks.checks.prediction import KINDS, judge

SCHEDULES = ["linear", "scaled-linear", "cosine"]


class Exact(nn.Module):
    """An exact denoiser that answers as a network of one kind would, told the index of a step."""

    def __init__(self, oracle: MixtureDenoiser, kind: str) -> None:
        super().__init__()
        self.oracle, self.kind = oracle, kind

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        schedule = self.oracle.process.schedule
        t = (time.double() + 1) / (schedule.steps or 1)
        mean = self.oracle.posterior(x.double(), t, Condition()).mean
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noise = (x - expand(alpha, x) * mean) / expand(sigma, x)
        return parameterisations[self.kind].target(schedule, mean, noise, t).float()


def oracle(data: str, process: GaussianProcess) -> MixtureDenoiser:
    if data == "digits":
        given = digits()
        return dataset_denoiser(process, to_float(given.read(range(300))))
    return gaussian_denoiser(process, -0.4, 0.5, (1, 8, 8))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("data", ["digits", "N(-0.4, 0.5²)"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_denoiser_is_known_whatever_it_is_said_to_predict(kind: str, data: str, name: str) -> None:
    process = GaussianProcess(make_schedule(name))
    net = Exact(oracle(data, process), kind)
    for claimed in KINDS:
        denoiser = NetworkDenoiser(net, process, claimed)
        assert judge(denoiser, torch.zeros(8, 1, 8, 8), Condition()).kind == kind


def test_of_data_that_says_nothing_v_is_not_told_but_nothing_else_is_either() -> None:
    """The exact v of N(0, 1) is 0, whatever it is shown: an untrained network could say that."""
    process = GaussianProcess(make_schedule("linear"))
    for kind, told in (("eps", "eps"), ("x0", "x0"), ("v", None)):
        denoiser = NetworkDenoiser(Exact(gaussian_denoiser(process, 0.0, 1.0, (1, 8, 8)), kind), process, kind)
        assert judge(denoiser, torch.zeros(8, 1, 8, 8), Condition()).kind == told


@pytest.mark.parametrize("seed", range(6))
def test_of_random_weights_nothing_is_said(seed: int) -> None:
    bundle = small_bundle(seed=seed)
    verdict = judge(bundle.denoiser(), torch.zeros(8, 3, 8, 8), Condition())
    assert verdict.kind is None
    assert not verdict.trained


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_was_trained_for_seconds_is_known(kind: str) -> None:
    denoiser = NetworkDenoiser(learned(kind, seed=1), GaussianProcess(make_schedule("linear")), "eps")
    verdict = judge(denoiser, torch.zeros(16, 1, 8, 8), Condition())
    assert verdict.trained
    assert verdict.kind == kind
