"""A scheduler's values: of a kind and in a range, or refused by name; what is read walks from noise towards data."""

from typing import Any

import pytest

from neblina.bundle.schedulers import read_scheduler
from neblina.bundle.schedulers.fields import FIELDS
from neblina.bundle.schedulers.ranges import RANGES
from neblina.core.errors import CheckpointError, NeblinaError, SettingError
from neblina.processes.foreign import Walk, make_walk
from neblina.processes.foreign_continuous import EDMGrid, FlowGrid, ScoreGrid
from neblina.processes.schedules import make_schedule

JUNK = (None, "text", "1000", ["linear"], {}, True, 0, 1, -1, 0.5, 1e-9, 50.0, 1e9, 10**400, float("nan"), float("inf"))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (
            "DDIMScheduler",
            {"beta_schedule": ["linear"]},
            r"beta_schedule = \['linear'\] is not supported: it is a name",
        ),
        ("DDIMScheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps = '1000' .*: it is a whole number"),
        ("DDIMScheduler", {"num_train_timesteps": True}, "num_train_timesteps = True .*: it is a whole number"),
        ("DDPMScheduler", {"trained_betas": 5}, "trained_betas = 5 .*: it is a list of numbers"),
        ("DDPMScheduler", {"beta_start": None}, "beta_start = None .*: it is a number between 0 and 1"),
        ("DDPMScheduler", {"clip_sample_range": -1}, "clip_sample_range = -1 .*: it is a number above 0"),
        ("EDMEulerScheduler", {"sigma_min": -1}, "sigma_min = -1 .*: it is a number above 0"),
        ("EDMEulerScheduler", {"rho": 0}, "rho = 0 .*: it is a number above 0"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": -2}, "shift = -2 .*: it is a number above 0"),
        ("ScoreSdeVeScheduler", {"snr": -1}, "snr = -1 .*: it is a number above 0"),
        (
            "EulerDiscreteScheduler",
            {"use_karras_sigmas": True, "sigma_min": 50, "sigma_max": 1},
            "sigma_min = 50 .*: it lies below sigma_max, which is 1",
        ),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_is_refused_by_name(
    kind: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError, match=f"{kind}: {said}"):
        read_scheduler({"_class_name": kind, **settings})


def test_a_long_value_is_not_printed_whole() -> None:
    with pytest.raises(
        CheckpointError, match=r"trained_betas = \[nan, nan, .* … \(5,000 characters\) is not"
    ) as refused:
        read_scheduler({"_class_name": "DDPMScheduler", "trained_betas": [float("nan")] * 1000})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("config", [{}, {"_class_name": None}, {"_class_name": ["DDPMScheduler"]}])
def test_a_configuration_that_does_not_name_its_class_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="says its class in _class_name"):
        read_scheduler(config)


def test_every_field_has_a_range_that_holds_its_default() -> None:
    fields = {field for table in FIELDS.values() for field in table}
    assert set(RANGES) == fields
    for table in FIELDS.values():
        for field, default in table.items():
            assert default is None or RANGES[field].holds(default), field


@pytest.mark.parametrize("kind", FIELDS)
def test_whatever_a_value_is_the_walk_falls_or_the_error_says_why(kind: str) -> None:
    others = [{}, *({flag: True} for flag in ("use_karras_sigmas", "use_flow_sigmas") if flag in FIELDS[kind])]
    followed = 0
    for field in FIELDS[kind]:
        for value in JUNK:
            for beside in others:
                try:
                    read = read_scheduler({"_class_name": kind, **beside, field: value})
                    walk = make_walk(read.grid, read.schedule, 4)
                except NeblinaError:
                    continue
                assert falls(walk)
                followed += 1
    assert followed


def falls(walk: Walk) -> bool:
    steps = walk.times.diff()
    return bool((steps[:-1] < 0).all() & (steps[-1] <= 0) & (walk.times <= 1).all() & (walk.times >= 0).all())


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True},
    ],
)
def test_a_shift_that_depends_on_the_size_of_the_picture_is_refused_by_name(config: dict[str, Any]) -> None:
    read_scheduler(config)
    with pytest.raises(CheckpointError, match=r"use_dynamic_shifting.*depends on the size of the picture"):
        read_scheduler({**config, "use_dynamic_shifting": True})


def test_a_floor_of_the_log_snr_that_leaves_too_few_levels_is_refused() -> None:
    """Of DDPM's table −log k is 4.605, 4.211, 3.965 and falls from there."""
    read = read_scheduler({"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": 4.0})
    with pytest.raises(
        SettingError, match="of the table's 1000 levels 2 have a half log-SNR of at least 4, and 8 steps"
    ):
        make_walk(read.grid, read.schedule, 8)


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        (EDMGrid, {"sigma_min": -1.0}),
        (EDMGrid, {"sigma_min": 90.0}),
        (EDMGrid, {"rho": 0.0}),
        (FlowGrid, {"shift": -2.0}),
        (FlowGrid, {"shift": float("nan")}),
        (FlowGrid, {"terminal": 1.0}),
        (ScoreGrid, {"sigma_min": 0.0}),
        (ScoreGrid, {"eps": 1.0}),
    ],
)
def test_a_foreign_grid_refuses_levels_that_are_none(grid: type, settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        grid(**settings)


def test_a_foreign_walk_that_does_not_fall_is_refused_with_the_place() -> None:
    schedule = make_schedule("linear")
    rising = read_scheduler({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "sigma_min": 156.0})
    assert falls(make_walk(rising.grid, schedule, 4))
    config = {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "sigma_max": 0.01}
    with pytest.raises(SettingError, match=r"the walk of 4 steps does not fall: it goes from t = \S+ to t = \S+"):
        make_walk(read_scheduler(config).grid, schedule, 4)
