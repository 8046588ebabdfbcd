"""A folder with any of diffusers' schedulers samples here as there; asked for another sampler, as our own do."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from beside import change
from models import CONFIG, small_bundle
from parity.harness import HOLD_RATIO
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.files import CARD
from neblina.bundle.folder import save_bundle
from neblina.bundle.schedulers import Sampling, read_scheduler
from neblina.core.errors import CheckpointError
from neblina.core.noise import SampleNoise
from neblina.nets.unet import UNet, UNetConfig
from neblina.processes.foreign import make_walk
from neblina.processes.schedules import make_schedule
from neblina.tasks.loading import load
from neblina.tasks.model import Model

V = {"prediction_type": "v_prediction"}
SCHEDULERS: list[tuple[str, dict[str, Any]]] = [
    ("DDPMScheduler", {**V, "timestep_spacing": "linspace"}),
    ("DDIMScheduler", {**V, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}),
    ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
    ("EulerDiscreteScheduler", {**V, "use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", V),
    ("LMSDiscreteScheduler", V),
    ("HeunDiscreteScheduler", V),
    ("KDPM2DiscreteScheduler", {**V, "timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", V),
    ("DEISMultistepScheduler", V),
    ("UniPCMultistepScheduler", {**V, "use_exponential_sigmas": True}),
]


def written(folder: Path, kind: str, settings: dict[str, Any]) -> Path:
    """A folder as diffusers writes one, without a card."""
    save_bundle(small_bundle(), folder)
    (folder / CARD).unlink()
    getattr(diffusers, kind)(**settings).save_pretrained(folder / "scheduler")
    change(folder / "model_index.json", scheduler=["diffusers", kind])
    return folder


def theirs(folder: Path, kind: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """diffusers' loop over the folder's network and scheduler, with the noise of pictures 0 and 1 under seed 3."""
    net = diffusers.UNet2DModel.from_pretrained(folder / "unet").eval()
    scheduler = getattr(diffusers, kind).from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps)
    noise, like = SampleNoise(3, [0, 1]), torch.empty(2, 3, 8, 8)
    module = importlib.import_module(type(scheduler).__module__)
    monkeypatch.setattr(module, "randn_tensor", lambda *given, **named: noise(like), raising=False)
    x = noise(like) * scheduler.init_noise_sigma
    with torch.no_grad():
        for time in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, time) if kind in HOLD_RATIO else x
            x = scheduler.step(net(scaled, time).sample, time, x).prev_sample
    return x


@pytest.mark.parametrize(("kind", "settings"), SCHEDULERS, ids=[kind for kind, _ in SCHEDULERS])
def test_pictures_are_those_of_diffusers_and_stay_so_when_saved_again(
    kind: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = written(tmp_path / "theirs", kind, settings)
    model = load(place)
    ours = model.generate(n=2, steps=6, seed=3)
    expected = theirs(place, kind, 6, monkeypatch)
    assert float((ours - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))

    model.save(tmp_path / "again")
    again = load(tmp_path / "again")
    assert again.bundle.sampling == model.bundle.sampling
    assert torch.equal(again.generate(n=2, steps=6, seed=3), ours)
    configs = [json.loads((tmp_path / name / "scheduler" / "scheduler_config.json").read_text()) for name in FOLDERS]
    assert configs[0] == configs[1]
    (tmp_path / "again" / CARD).unlink()
    assert load(tmp_path / "again").bundle.sampling == model.bundle.sampling


FOLDERS = ("theirs", "again")


def test_asked_for_another_sampler_or_grid_the_model_walks_as_our_own(tmp_path: Path) -> None:
    model = load(written(tmp_path / "model", "EulerDiscreteScheduler", V))
    own = Model(replace(model.bundle, sampling=Sampling()), model.device)
    for asked in ({"sampler": "heun"}, {"sampler": "euler", "grid": "karras"}):
        assert torch.equal(model.generate(n=1, steps=4, **asked), own.generate(n=1, steps=4, **asked))
    assert not torch.equal(model.generate(n=1, steps=4), own.generate(n=1, steps=4, sampler="euler"))


def test_a_progress_bar_counts_the_evaluations_of_the_model_s_own_walk(tmp_path: Path) -> None:
    model = load(written(tmp_path / "model", "HeunDiscreteScheduler", V))
    assert model.evaluations(steps=6) == 11
    model = load(written(tmp_path / "short", "PNDMScheduler", {"skip_prk_steps": True}))
    assert model.evaluations(steps=6) == 7


def test_a_learned_variance_is_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "theirs"
    net = UNet(UNetConfig(**{**CONFIG, "out_channels": 6})).eval()
    save_bundle(Bundle(net, make_schedule("cosine"), "eps", learned_variance=True), place)
    (place / CARD).unlink()
    diffusers.DDPMScheduler(**V, variance_type="learned_range").save_pretrained(place / "scheduler")
    model = load(place)
    assert model.bundle.learned_variance
    ours, expected = model.generate(n=2, steps=6, seed=3), theirs(place, "DDPMScheduler", 6, monkeypatch)
    assert float((ours - expected).abs().max()) <= 1e-4
    model.save(tmp_path / "again")
    (tmp_path / "again" / CARD).unlink()
    assert torch.equal(load(tmp_path / "again").generate(n=2, steps=6, seed=3), ours)
    diffusers.DDPMScheduler(**V).save_pretrained(place / "scheduler")
    with pytest.raises(CheckpointError, match="says that the variance of this model is fixed"):
        load(place)


def test_a_part_of_the_way_is_told_as_the_whole_of_it(tmp_path: Path) -> None:
    """Stopped at the walk's third time, the pictures are those that the whole way passes there."""
    model = load(written(tmp_path / "model", "EulerDiscreteScheduler", V))
    walk = make_walk(read_scheduler(model.bundle.sampling.scheduler or {}).grid, model.bundle.schedule, 6)
    passed: list[Tensor] = []
    model.generate(n=2, steps=6, seed=3, on_step=lambda step: passed.append(step.query.x))
    stopped = model.generate(n=2, steps=6, seed=3, t_end=float(walk.times[3]))
    assert torch.allclose(stopped, passed[3], atol=1e-6)
