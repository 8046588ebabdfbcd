"""Walks of another library: their times are times of the process, and the network is told what the walk says."""

import numpy as np
import pytest
import scipy.stats
import torch

from neblina.core.errors import SettingError
from neblina.denoisers.denoiser import NetworkDenoiser
from neblina.denoisers.parameterisations import clocks
from neblina.denoisers.told import Told, on_walk
from neblina.processes.continuous import EDM, Flow
from neblina.processes.foreign import Walk, make_walk, times_at
from neblina.processes.foreign_continuous import EDMGrid, FlowGrid
from neblina.processes.foreign_tables import SPACINGS, TableGrid
from neblina.processes.gaussian import GaussianProcess
from neblina.processes.ladders import LADDERS, beta
from neblina.processes.schedules import Schedule
from neblina.processes.tables import Cosine, Linear

LINEAR = Linear()


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("count", [2, 7, 50])
def test_a_ladder_falls_from_its_first_level_to_its_last(ladder: str, count: int) -> None:
    levels = LADDERS[ladder](80.0, 0.002, count)
    assert levels.shape == (count,)
    assert bool((levels.diff() < 0).all())
    assert levels[[0, -1]].tolist() == pytest.approx([80.0, 0.002], rel=1e-9)


def test_the_beta_ladder_stands_at_the_quantiles_of_its_law() -> None:
    quantiles = scipy.stats.beta.ppf(1 - np.linspace(0, 1, 41), 0.6, 0.6)
    assert torch.allclose(beta(1.0, 0.0, 41), torch.from_numpy(quantiles), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("ladder", [None, *LADDERS])
@pytest.mark.parametrize("drops_last", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 13, 50])
def test_a_walk_over_a_table_falls_within_the_process(
    spacing: str, ladder: str | None, drops_last: bool, steps: int
) -> None:
    grid = TableGrid(spacing=spacing, ladder=ladder, drops_last=drops_last)
    walk = make_walk(grid, Cosine(), steps)
    assert walk.told is not None
    assert walk.times.shape == (steps + 1,)
    assert walk.told.shape == (steps,)
    assert bool((walk.times.diff() < 0).all())
    assert 0 == walk.times[-1] < walk.times[0] <= 1
    assert bool((walk.told >= 0).all() & (walk.told <= 999).all())


def test_a_whole_index_is_told_at_the_time_of_its_level() -> None:
    walk = make_walk(TableGrid(spacing="leading"), LINEAR, 10)
    assert walk.told is not None
    assert torch.equal(walk.told, 100.0 * torch.arange(9, -1, -1).double())
    assert torch.allclose(clocks["index"](LINEAR, walk.times[:-1]), walk.told)


def test_between_two_indices_the_level_is_told_as_another_index_than_its_own() -> None:
    """k interpolated linearly is noisier than log k is: 1.5 % near the data (the trap of FACTS)."""
    walk = make_walk(TableGrid(spacing="linspace", whole=False), LINEAR, 7)
    assert walk.told is not None
    own = clocks["index"](LINEAR, walk.times[:-1])
    inside = walk.told != walk.told.round()
    assert bool((own[inside] > walk.told[inside]).all())


@pytest.mark.parametrize(
    ("grid", "schedule", "steps", "said"),
    [
        (TableGrid(), LINEAR, 0, "at least 1 step, not 0"),
        (TableGrid(), Linear(steps=10), 11, "11 steps are more than the 10 that the linear schedule has"),
        (TableGrid(), Flow(), 5, "counts the steps of a discrete schedule, and flow has none"),
        (TableGrid(offset=20), Linear(steps=40), 4, "steps_offset = 20 with 4 leading steps leaves the table of 40"),
        (TableGrid(ladder="karras", sigma_max=700.0), LINEAR, 5, "asks for σ/α = 700, and the linear schedule ends at"),
        (EDMGrid(sigma_max=100.0), EDM(), 5, "asks for σ/α = 100, and the edm schedule ends at 80"),
    ],
)
def test_a_walk_that_the_schedule_does_not_have_is_refused(
    grid: TableGrid | EDMGrid, schedule: Schedule, steps: int, said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        make_walk(grid, schedule, steps)


def test_times_are_found_at_their_levels(schedule: Schedule) -> None:
    ratios = torch.tensor([3.0, 0.5, 0.01, 0.0], dtype=torch.float64)
    times = times_at(schedule, ratios)
    assert torch.allclose(torch.exp(-schedule.log_snr(times) / 2), ratios, rtol=1e-9, atol=0)


def test_a_shift_leaves_both_ends_where_they_are_and_moves_the_rest_towards_the_noise() -> None:
    plain, shifted = (make_walk(FlowGrid(shift), Flow(), 8) for shift in (1.0, 3.0))
    assert plain.times[[0, -1]].tolist() == shifted.times[[0, -1]].tolist() == [1.0, 0.0]
    assert bool((shifted.times > plain.times)[1:-1].all())


def test_the_network_is_told_the_walks_times_and_by_its_own_clock_elsewhere() -> None:
    own = clocks["index"]
    known = torch.tensor([0.2, 0.6], dtype=torch.float64)
    told = Told(known, torch.tensor([7.0, 9.5], dtype=torch.float64), own)
    times = torch.tensor([0.6, 0.4, 0.2, 1.0, 0.0], dtype=torch.float64)
    assert told(LINEAR, times).tolist() == [9.5, 399.0, 7.0, 999.0, 0.0]


def test_a_walk_that_tells_nothing_leaves_the_denoiser_as_it_is() -> None:
    denoiser = NetworkDenoiser(torch.nn.Identity(), GaussianProcess(LINEAR), "eps")
    assert on_walk(denoiser, Walk(torch.tensor([1.0, 0.0]), 1.0)) is denoiser


def test_a_network_beside_it_is_told_the_same_unless_its_clock_is_another() -> None:
    one = NetworkDenoiser(torch.nn.Identity(), GaussianProcess(LINEAR), "eps")
    alike, other = (NetworkDenoiser(torch.nn.Identity(), one.process, "eps", clock) for clock in ("index", "c_noise"))
    walk = make_walk(TableGrid(spacing="linspace", whole=False), LINEAR, 7)
    told = [on_walk(net, walk, beside=one).read_clock(LINEAR, walk.times[:-1]) for net in (alike, other)]
    assert walk.told is not None
    assert torch.equal(told[0], walk.told)
    assert torch.equal(told[1], clocks["c_noise"](LINEAR, walk.times[:-1]))
