"""A scheduler's file that says how a model samples is read back as the same walk; one that does not, says so."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, EulerDiscreteScheduler
from models import small_bundle

from neblina.bundle.files import CARD
from neblina.bundle.folder import load_bundle, save_bundle
from neblina.bundle.schedulers import Sampling, read_scheduler, write_scheduler
from neblina.bundle.schedulers.lacks import lacking
from neblina.core.errors import CheckpointError, SettingError
from neblina.processes.foreign import Walk
from neblina.processes.schedules import make_schedule

SAMPLER, WALK, CLIP = "samples with ", "walks over ", "clips "
CLIPPED: dict[str, Any] = {"clip": 1.0}


@pytest.mark.parametrize(
    ("schedule", "parameterisation", "sampling", "kind"),
    [
        ("linear", "eps", Sampling("ddim", grid="leading"), "DDIMScheduler"),
        ("cosine", "v", Sampling("ddim", grid="uniform"), "DDIMScheduler"),
        ("linear", "v", Sampling("ddim", grid="trailing", steps=30), "DDIMScheduler"),
        ("linear", "v", Sampling("euler", grid="leading", clip=2.0, clip_keeps_direction=True), "DDIMScheduler"),
        ("linear", "eps", Sampling("ddpm", grid="leading", **CLIPPED), "DDPMScheduler"),
        ("sigmoid", "eps", Sampling("ddpm_large", grid="trailing"), "DDPMScheduler"),
        ("edm", "edm", Sampling("ddim", grid="karras"), "EDMEulerScheduler"),
        ("flow", "flow", Sampling("heun_flow", grid="uniform", steps=1), "FlowMatchHeunDiscreteScheduler"),
    ],
)
def test_a_scheduler_of_the_same_walk_sampler_and_clipping_lacks_nothing(
    schedule: str, parameterisation: str, sampling: Sampling, kind: str
) -> None:
    clock = "time" if schedule == "flow" else None
    written = write_scheduler(make_schedule(schedule), parameterisation, sampling, clock=clock)
    assert written.lacks == ()
    assert written.config is not None
    assert written.config["_class_name"] == kind


@pytest.mark.parametrize(
    ("schedule", "parameterisation", "sampling", "kind", "lacks"),
    [
        ("linear", "eps", Sampling("ddim"), "DDPMScheduler", (SAMPLER, WALK)),
        ("linear", "eps", Sampling("ddim", grid="uniform", steps=30), "DDPMScheduler", (SAMPLER, WALK)),
        ("linear", "eps", Sampling("ddim", grid="leading", **CLIPPED), "DDPMScheduler", (SAMPLER,)),
        ("linear", "eps", Sampling("ddpm", grid="quadratic"), "DDPMScheduler", (WALK,)),
        ("cosine", "eps", Sampling("dpmpp_2m", grid="karras"), "DDPMScheduler", (SAMPLER, WALK)),
        ("edm", "edm", Sampling("heun", grid="karras", **CLIPPED), "EDMEulerScheduler", (SAMPLER, CLIP)),
        ("edm", "edm", Sampling("ddim"), "EDMEulerScheduler", (WALK,)),
        ("flow", "flow", Sampling("dpmpp_2m", **CLIPPED), "FlowMatchEulerDiscreteScheduler", (SAMPLER, WALK, CLIP)),
        ("flow", "flow", Sampling("heun_flow"), "FlowMatchEulerDiscreteScheduler", (SAMPLER, WALK)),
    ],
)
def test_otherwise_the_plain_scheduler_of_the_process_is_written_and_what_it_lacks_is_said(
    schedule: str, parameterisation: str, sampling: Sampling, kind: str, lacks: tuple[str, ...]
) -> None:
    written = write_scheduler(make_schedule(schedule), parameterisation, sampling)
    assert written.config is not None
    assert written.config["_class_name"] == kind
    assert len(written.lacks) == len(lacks)
    for sentence, start in zip(written.lacks, lacks, strict=True):
        assert sentence.startswith(start)
    read = read_scheduler(written.config)
    assert (read.schedule, read.parameterisation) == (make_schedule(schedule), parameterisation)


@pytest.mark.parametrize(
    "change",
    [
        lambda walk: replace(walk, start=1.001 * walk.start),
        lambda walk: replace(walk, told=walk.told + 0.5),
        lambda walk: replace(walk, times=walk.times**1.01),
    ],
    ids=["start", "told", "times"],
)
def test_a_walk_is_its_times_its_start_and_what_it_tells(change: Callable[[Walk], Walk]) -> None:
    schedule, sampling = make_schedule("linear"), Sampling("ddim", grid="leading")
    read = read_scheduler({"_class_name": "DDIMScheduler", "clip_sample": False})
    assert lacking(read, schedule, "index", sampling) == ()
    other = replace(read, grid=lambda schedule, steps: change(read.grid(schedule, steps)))
    (lack,) = lacking(other, schedule, "index", sampling)
    assert lack.startswith(WALK)


def test_settings_of_a_sampler_count() -> None:
    """diffusers' predictor-corrector has a ratio of 0.15 where ours has 0.16."""
    written = write_scheduler(make_schedule("ve"), "score", Sampling("predictor_corrector"), clock="sigma")
    assert written.config is not None
    assert written.lacks[0] == "predictor_corrector has other settings than the scheduler's file says"


def test_a_scheduler_that_a_model_follows_is_kept_while_it_says_how_the_model_samples() -> None:
    followed = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction"}
    schedule = read_scheduler(followed).schedule
    assert write_scheduler(schedule, "v", Sampling("ddim", scheduler=followed)).config == followed
    clipped = write_scheduler(schedule, "v", Sampling("ddim", scheduler=followed, **CLIPPED))
    assert clipped.config is not None
    assert clipped.config["_class_name"] == "DDPMScheduler"
    assert WALK + "the grid of another scheduler; the scheduler's file says other times" in clipped.lacks


def test_the_card_says_what_the_scheduler_s_file_lacks_and_diffusers_opens_the_folder(tmp_path: Path) -> None:
    bundle = small_bundle(schedule="cosine", sampling=Sampling("dpmpp_2m", grid="karras"))
    save_bundle(bundle, tmp_path / "model")
    assert json.loads((tmp_path / "model" / CARD).read_text())["scheduler_lacks"] == [
        "samples with dpmpp_2m; the scheduler's file says ddpm",
        "walks over the karras grid; the scheduler's file says other times",
    ]
    assert DDPMPipeline.from_pretrained(tmp_path / "model").scheduler.config.beta_schedule == "squaredcos_cap_v2"
    loaded = load_bundle(tmp_path / "model")
    assert (loaded.sampling, loaded.card) == (bundle.sampling, bundle.card)
    save_bundle(small_bundle(sampling=Sampling("ddpm", grid="leading")), tmp_path / "model")
    assert json.loads((tmp_path / "model" / CARD).read_text())["scheduler_lacks"] == []


def test_a_sampler_that_there_is_not_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is not a sampler"):
        save_bundle(small_bundle(sampling=Sampling("ddmi")), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("kind", "swap"), [(DDPMScheduler, {"prediction_type": "v_prediction"}), (EulerDiscreteScheduler, {})]
)
def test_a_scheduler_that_was_put_in_since_is_refused_rather_than_passed_over(
    kind: Any, swap: dict[str, Any], tmp_path: Path
) -> None:
    save_bundle(small_bundle(sampling=Sampling("ddpm", grid="leading")), tmp_path / "model")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    pipeline.save_pretrained(tmp_path / "model")  # with the same scheduler: nothing to say
    load_bundle(tmp_path / "model")
    pipeline.register_modules(scheduler=kind.from_config({**pipeline.scheduler.config, **swap}))
    pipeline.save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json say .* delete neblina\.json to follow"):
        load_bundle(tmp_path / "model")
    (tmp_path / "model" / CARD).unlink()
    followed = load_bundle(tmp_path / "model")
    assert followed.sampling.scheduler is not None
    assert followed.sampling.scheduler["_class_name"] == kind.__name__
    assert followed.parameterisation == ("v" if kind is DDPMScheduler else "eps")


def test_a_field_that_diffusers_fills_in_is_no_difference(tmp_path: Path) -> None:
    save_bundle(small_bundle(sampling=Sampling("ddpm", grid="leading")), tmp_path / "model")
    place = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    said = json.loads(place.read_text())
    del said["thresholding"]
    place.write_text(json.dumps({**said, "_diffusers_version": "0.99"}))
    assert load_bundle(tmp_path / "model").parameterisation == "eps"
