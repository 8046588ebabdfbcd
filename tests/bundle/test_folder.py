"""A model on disk: opens both ways with diffusers, with equal pictures; damage and contradictions are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from models import CONFIG, small_bundle
from safetensors import SafetensorError
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.files import CARD
from neblina.bundle.folder import load_bundle, save_bundle
from neblina.bundle.schedulers import Sampling, Written, read_scheduler, route, sampling_of, write_scheduler
from neblina.core.conditions import Condition
from neblina.core.errors import CheckpointError, NeblinaError, SettingError, StorageError
from neblina.core.plan import conditional
from neblina.denoisers.parameterisations import parameterisations
from neblina.denoisers.told import on_walk
from neblina.guidance.clipping import clip
from neblina.processes.foreign import make_walk
from neblina.processes.schedules import Schedule, make_schedule
from neblina.samplers import samplers
from neblina.samplers.drive import sample


class Replayed:
    """Gives out recorded noise, then zeros."""

    def __init__(self, draws: list[Tensor]) -> None:
        self.draws = list(draws)

    def __call__(self, like: Tensor) -> Tensor:
        return self.draws.pop(0).to(like.dtype) if self.draws else torch.zeros_like(like)


def recorded(shape: tuple[int, ...], count: int, seed: int) -> list[Tensor]:
    """The draws that diffusers' pipeline makes from a generator of this seed."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def our_pictures(folder: Path, steps: int, noise: list[Tensor]) -> Tensor:
    """Pictures in [0, 1] of the folder's model, by its own defaults, with given noise."""
    return (sampled(load_bundle(folder), steps, noise) / 2 + 0.5).clamp(0, 1)


def sampled(bundle: Bundle, steps: int, noise: list[Tensor]) -> Tensor:
    sampling, sampler = bundle.sampling, samplers[bundle.sampling.sampler]
    grid, settings = route(sampling, None, None, steps)
    walk = make_walk(grid or sampler.grid, bundle.schedule, steps)
    denoiser = on_walk(bundle.denoiser(), walk)
    plan = conditional(denoiser, Condition())
    if sampling.clip is not None:
        plan = clip(plan, sampling.clip, keep_direction=sampling.clip_keeps_direction)
    x = walk.start * noise[0]
    return sample(sampler(denoiser.process, x, walk.times, noise=Replayed(noise[1:]), **settings), plan)


def their_pictures(pipeline: Any, steps: int, seed: int, **settings: Any) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    out = pipeline(batch_size=2, generator=generator, num_inference_steps=steps, output_type="np", **settings)
    return torch.from_numpy(out.images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("schedule", ["linear", "scaled-linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("parameterisation", ["eps", "x0", "v"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddpm_large"])
def test_a_folder_we_write_opens_in_diffusers_with_equal_pictures(
    schedule: str, parameterisation: str, sampler: str, tmp_path: Path
) -> None:
    for limit in (None, 1.0):
        sampling = Sampling(sampler=sampler, grid="leading", clip=limit)
        bundle = small_bundle(schedule=schedule, parameterisation=parameterisation, sampling=sampling)
        save_bundle(bundle, tmp_path / "model")
        pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
        theirs = their_pictures(pipeline, 20, seed=4)
        ours = our_pictures(tmp_path / "model", 20, recorded((2, 3, 8, 8), 20, seed=4))
        assert float((theirs - ours).abs().max()) <= 1e-4


@pytest.mark.parametrize("settings", [{}, {"timestep_spacing": "trailing"}, {"variance_type": "fixed_large"}], ids=str)
def test_a_ddpm_folder_that_diffusers_wrote_opens_here_with_equal_pictures(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    pipeline = DDPMPipeline(UNet2DModel(**CONFIG).eval(), DDPMScheduler(**settings))
    pipeline.save_pretrained(tmp_path / "theirs")
    theirs = their_pictures(pipeline, 30, seed=3)  # 30 does not divide 1000: trailing has to round
    ours = our_pictures(tmp_path / "theirs", 30, recorded((2, 3, 8, 8), 30, seed=3))
    assert float((theirs - ours).abs().max()) <= 1e-4


@pytest.mark.slow
def test_all_thousand_steps_agree_too(tmp_path: Path) -> None:
    torch.manual_seed(2)
    pipeline = DDPMPipeline(UNet2DModel(**CONFIG).eval(), DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "theirs")
    theirs = their_pictures(pipeline, 1000, seed=3)
    ours = our_pictures(tmp_path / "theirs", 1000, recorded((2, 3, 8, 8), 1000, seed=3))
    assert float((theirs - ours).abs().max()) <= 1e-4


@pytest.mark.parametrize("settings", [{}, {"clip_sample": False}, {"beta_schedule": "squaredcos_cap_v2"}], ids=str)
def test_a_ddim_folder_that_diffusers_wrote_opens_here_with_equal_pictures(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """In float64: clipping x_0 while keeping a random network's eps magnifies float32 rounding to 2e-4."""
    torch.manual_seed(1)
    scheduler = DDIMScheduler(**settings)
    net = UNet2DModel(**CONFIG).eval()
    DDIMPipeline(net, scheduler).save_pretrained(tmp_path / "theirs")
    scheduler.set_timesteps(20)
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    (start,) = recorded((2, 3, 8, 8), 1, seed=3)
    theirs = start.double()
    net.double()
    with torch.no_grad():
        for t in scheduler.timesteps:
            theirs = scheduler.step(net(theirs, t).sample, t, theirs, eta=0.0).prev_sample
    bundle = load_bundle(tmp_path / "theirs")
    bundle.net.double()
    ours = sampled(bundle, 20, [start.double()])
    assert float((theirs - ours).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_a_class_conditional_network_answers_alike_in_diffusers(tmp_path: Path) -> None:
    bundle = small_bundle(classes=3)
    save_bundle(bundle, tmp_path / "model")
    theirs = DDPMPipeline.from_pretrained(tmp_path / "model").unet
    x, time, labels = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 900.0]), torch.tensor([1, 3])
    with torch.no_grad():
        assert torch.allclose(theirs(x, time, labels).sample, bundle.net(x, time, labels), atol=1e-5)


@pytest.mark.parametrize("parameterisation", list(parameterisations))
def test_what_is_saved_is_what_is_loaded(schedule: Schedule, parameterisation: str, tmp_path: Path) -> None:
    if float(schedule.alpha(torch.ones(1).double())) == 0 and parameterisation in ("eps", "score"):
        pytest.skip("says nothing about the data at t = 1, and is refused")
    bundle = small_bundle(classes=2, parameterisation=parameterisation)
    bundle = replace(bundle, schedule=schedule, label_names=("cat", "dog"), card={"metrics": {"x": 1.5}})
    save_bundle(bundle, tmp_path / "model")
    loaded = load_bundle(tmp_path / "model")
    for field in ("schedule", "parameterisation", "clock", "label_names", "null_label", "sampling", "card"):
        assert getattr(loaded, field) == getattr(bundle, field), field
    assert loaded.net.config == bundle.net.config
    for name, tensor in bundle.net.state_dict().items():
        assert torch.equal(loaded.net.state_dict()[name], tensor)


def test_saving_over_a_model_replaces_it_and_over_anything_else_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "model"
    save_bundle(small_bundle(seed=0), place)
    save_bundle(small_bundle(seed=1), place)
    assert torch.equal(load_bundle(place).net.conv_in.weight, small_bundle(seed=1).net.conv_in.weight)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=r"holds photo\.jpg, which saving a model would delete; it is left alone"):
        save_bundle(small_bundle(), tmp_path / "holiday")
    assert (tmp_path / "holiday" / "photo.jpg").read_bytes() == b"precious"


def test_a_full_disk_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "model"
    save_bundle(small_bundle(seed=0), place)

    def full(*arguments: Any, **settings: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("neblina.core.tensors.save_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        save_bundle(small_bundle(seed=1), place)
    assert torch.equal(load_bundle(place).net.conv_in.weight, small_bundle(seed=0).net.conv_in.weight)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def damage_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def lose_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def cut_card(folder: Path) -> None:
    (folder / CARD).write_text((folder / CARD).read_text()[:40])


def change(file: str, key: str, value: Any) -> Any:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        content[key] = value
        (folder / file).write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_weights, "damaged or cut short"),
        (lose_weights, "holds no weights"),
        (cut_card, "damaged or cut short"),
        (change("unet/config.json", "layers_per_block", 3), "which the configuration asks for"),
        (change("unet/config.json", "out_channels", 6), "by the configuration"),
        (change("unet/config.json", "nrom_eps", 6), "Did you mean norm_eps"),
        (change(CARD, "format", 2), "Upgrade neblina"),
        (change(CARD, "process", {"schedule": "linaer"}), "Did you mean linear"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(harm: Any, said: str, tmp_path: Path) -> None:
    save_bundle(small_bundle(), tmp_path / "model")
    harm(tmp_path / "model")
    with pytest.raises(NeblinaError, match=said):
        load_bundle(tmp_path / "model")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bundle = small_bundle()
    bundle.net.conv_in.weight.data[0, 0, 0, 0] = torch.nan
    save_bundle(bundle, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"conv_in\.weight holds values that are not finite"):
        load_bundle(tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"_class_name": "LCMScheduler"}, "LCMScheduler cannot be read: it samples a distilled network"),
        ({"_class_name": "NewScheduler"}, "NewScheduler cannot be read; there is: DDPMScheduler, "),
        ({"trained_betas": [0.1]}, "num_train_timesteps = 1000 is not supported: trained_betas has 1 values"),
        ({"thresholding": True, "sample_max_value": 2.0}, "sample_max_value = 2.0 is not supported"),
        ({"rescale_betas_zero_snr": True}, "eps says nothing about the data at t = 1"),
        ({"timestep_spacing": "linspce"}, "timestep_spacing = 'linspce' is not supported: it can be 'linspace'"),
        ({"variance_type": "learned"}, "variance_type = 'learned' is not supported"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
    ],
)
def test_a_scheduler_field_without_a_meaning_here_is_refused_by_name(config: dict[str, Any], said: str) -> None:
    with pytest.raises((CheckpointError, SettingError), match=said):
        read_scheduler({"_class_name": "DDPMScheduler", **config})


SETTINGS = {"betas": {"values": (0.01, 0.02, 0.5)}}


@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine", "sigmoid", "betas"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddpm_large", "ddim"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_scheduler_is_read_back_as_it_was_written(name: str, sampler: str, zero_snr: bool) -> None:
    if name == "sigmoid" and sampler == "ddim":
        pytest.skip("diffusers' DDIMScheduler has no sigmoid table: a DDPMScheduler is written")
    schedule = make_schedule(name, zero_snr=zero_snr, **SETTINGS.get(name, {}))
    keeps = sampler == "ddim"
    sampling = Sampling(sampler=sampler, grid="trailing", clip=2.0, clip_keeps_direction=keeps)
    written = write_scheduler(schedule, "v", sampling).config
    assert written is not None
    read = read_scheduler(written)
    assert (read.schedule, read.parameterisation, read.sampler) == (schedule, "v", sampler)
    assert (read.clip, read.clip_keeps_direction) == (2.0, keeps)
    steps = 3
    assert torch.allclose(make_walk(read.grid, schedule, steps).times, make_walk("trailing", schedule, steps).times)
    again = sampling_of(written, read)
    assert write_scheduler(schedule, "v", again) == Written(written)
    assert read_scheduler(written) == read


@pytest.mark.parametrize(
    ("schedule", "parameterisation", "sampler", "clock", "kind"),
    [
        ("flow", "flow", "euler", "time", "FlowMatchEulerDiscreteScheduler"),
        ("flow", "flow", "heun_flow", None, "FlowMatchEulerDiscreteScheduler"),
        ("edm", "edm", "ddim", None, "EDMEulerScheduler"),
        ("ve", "score", "ddpm", "sigma", "ScoreSdeVeScheduler"),
    ],
)
def test_a_process_without_a_table_is_written_as_the_scheduler_of_its_kind(
    schedule: str, parameterisation: str, sampler: str, clock: str | None, kind: str
) -> None:
    sampling = Sampling(sampler=sampler)
    written = write_scheduler(make_schedule(schedule), parameterisation, sampling, clock=clock).config
    assert written is not None
    assert written["_class_name"] == kind
    read = read_scheduler(written)
    assert (read.schedule, read.parameterisation) == (make_schedule(schedule), parameterisation)


@pytest.mark.parametrize(
    ("schedule", "parameterisation", "clock"),
    [("linear", "eps", "c_noise"), ("ve", "score", None), ("vp", "eps", None), ("linear", "score", None)],
)
def test_a_model_that_no_scheduler_says_is_written_without_one(
    schedule: str, parameterisation: str, clock: str | None
) -> None:
    written = write_scheduler(make_schedule(schedule), parameterisation, Sampling(), clock=clock)
    assert written.config is None
    assert written.lacks[0].startswith(f"diffusers has no scheduler that says {schedule}, {parameterisation} and ")


def test_old_attention_names_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bundle = small_bundle()
    save_bundle(bundle, tmp_path / "model")
    place = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(place)
    for new, old in {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    assert any(".query." in name for name in state)
    save_file(state, place)
    for name, tensor in load_bundle(tmp_path / "model").net.state_dict().items():
        assert torch.equal(tensor, bundle.net.state_dict()[name])
