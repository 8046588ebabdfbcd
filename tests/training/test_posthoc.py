"""An average of any length after training is the one that would have run beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learners import digest, pictures, tiny
from models import CONFIG, small_bundle
from safetensors.torch import load_file
from scipy.integrate import quad
from torch import nn

from neblina.bundle.folder import save_bundle
from neblina.core.errors import CheckpointError, Interrupted, SettingError
from neblina.nets.unet import UNet, UNetConfig
from neblina.tasks.average import average
from neblina.tasks.loading import load
from neblina.training.posthoc import (
    LENGTHS,
    PowerAverages,
    Profile,
    combination,
    exponent,
    list_snapshots,
    reconstruct,
    save_snapshot,
)
from neblina.training.run import Report, train


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_a_length_is_the_standard_deviation_of_the_profile(length: float) -> None:
    gamma = exponent(length)

    def moment(power: int) -> float:
        return float(quad(lambda u: (gamma + 1) * u**gamma * u**power, 0, 1)[0])

    assert moment(0) == pytest.approx(1)
    assert np.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(length)


def test_the_published_exponents() -> None:
    """Karras et al. 2024, section 3.1: σ_rel = 0.05 and 0.10 are γ ≈ 16.97 and 6.94."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("pair", [(Profile(100, 0.05), Profile(300, 0.1)), (Profile(300, 0.05), Profile(100, 0.2))])
def test_inner_products_are_integrals(pair: tuple[Profile, Profile]) -> None:
    def height(one: Profile, step: float) -> float:
        gamma = exponent(one.length)
        return (gamma + 1) * step**gamma / one.step ** (gamma + 1) if step <= one.step else 0.0

    integral, _ = quad(lambda step: height(pair[0], step) * height(pair[1], step), 0, 100)
    assert pair[0].dot(pair[1]) == pytest.approx(integral, rel=1e-8)
    assert pair[1].dot(pair[0]) == pair[0].dot(pair[1])


def trajectory(steps: int) -> np.ndarray[Any, Any]:
    """Weights that settle while they jitter and drift: what training looks like, 200 of them."""
    random = np.random.default_rng(0)
    settle = np.exp(-np.arange(1, steps + 1) / (steps / 5))[:, None] * random.normal(size=200)
    walk = np.cumsum(random.normal(size=(steps, 200)), 0) / np.sqrt(steps)
    return np.asarray(settle + walk + 0.3 * random.normal(size=(steps, 200)))


def test_an_average_keeps_the_weights_of_its_profile() -> None:
    """Step by step with its decay, the weight of step k is ∫ of the profile over [k − 1, k]: exactly."""
    path, net = trajectory(60), nn.Linear(200, 1, bias=False).double()
    averages = PowerAverages(net)
    for step, weights in enumerate(path, 1):
        net.weight.data = torch.from_numpy(weights)[None]
        averages.update(net, step)
    for length, mine in averages.nets.items():
        ends = (np.arange(61) / 60) ** (exponent(length) + 1)
        assert np.allclose(mine.weight.numpy()[0], np.diff(ends) @ path)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(("length", "close"), [(0.05, 1e-5), (0.06, 3e-3), (0.08, 3e-3), (0.1, 1e-5), (0.15, 6e-3)])
def test_a_reconstructed_average_is_the_one_that_ran(length: float, close: float, tmp_path: Path) -> None:
    """Relative to how far the averages of lengths 0.05 and 0.10 are from each other."""
    path, net = trajectory(1000), nn.Linear(200, 1, bias=False)
    averages, direct = PowerAverages(net), PowerAverages(net, (length,))
    for step, weights in enumerate(path, 1):
        net.weight.data = torch.from_numpy(weights).float()[None]
        averages.update(net, step)
        direct.update(net, step)
        if step % 50 == 0:
            save_snapshot(tmp_path, step, averages)
    found, missed = reconstruct(tmp_path, length)
    ran = direct.nets[length].weight
    short, long = (averages.nets[one].weight for one in LENGTHS)
    error = float((found["weight"] - ran).norm() / (short - long).norm())  # type: ignore[operator]
    print(f"length {length}: error {error:.2e} of the distance between the two, profile missed by {missed:.2e}")
    assert error < close


def test_more_snapshots_miss_the_profile_by_less() -> None:
    def missed(every: int) -> float:
        stored = [Profile(step, length) for step in range(every, 1001, every) for length in LENGTHS]
        return combination(stored, Profile(1000, 0.07))[1]

    assert missed(25) < missed(100) < missed(500)


@pytest.mark.parametrize("length", [0, -0.1, 0.3, float("nan")])
def test_a_length_that_no_average_has_is_refused(length: float) -> None:
    with pytest.raises(SettingError, match="share of the training between 0 and"):
        exponent(length)


def test_a_run_without_snapshots_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no snapshots"):
        reconstruct(tmp_path, 0.1)


def test_each_snapshot_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(place: Path) -> dict[str, torch.Tensor]:
        read.append(place)
        return load_file(place)

    monkeypatch.setattr("neblina.training.posthoc.load_file", counted)
    averages = PowerAverages(nn.Linear(3, 1))
    for step in (10, 20, 30):
        save_snapshot(tmp_path, step, averages)
    found, _ = reconstruct(tmp_path, 0.08)
    assert set(found) == {"weight", "bias"}
    assert read == list(list_snapshots(tmp_path).values())


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Linear(3, 1), "another network"),
        (UNet(UNetConfig(**{**CONFIG, "block_out_channels": (8, 32)})), "another network.*differ in conv_in"),
    ],
    ids=["another kind", "another width"],
)
def test_snapshots_of_another_network_are_refused(net: nn.Module, said: str, tmp_path: Path) -> None:
    save_bundle(small_bundle(), tmp_path / "model")
    save_snapshot(tmp_path / "snapshots", 10, PowerAverages(net))
    with pytest.raises(CheckpointError, match=said):
        average(tmp_path, 0.08, tmp_path / "averaged")
    assert not (tmp_path / "averaged").exists()


@pytest.mark.training
def test_an_interrupted_run_ends_with_the_same_snapshots_and_its_model_averages(tmp_path: Path) -> None:
    recipe = tiny(images=20 * 8, snapshots_every=5, checkpoint_every=3)
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    train(recipe, pictures(), undisturbed, device="cpu")

    def press(report: Report) -> None:
        if report.step == 11:  # two snapshots in, and one more after the last checkpoint
            raise Interrupted("killed")

    (stopped / "snapshots").mkdir(parents=True)
    (stopped / "snapshots" / "step-00000099.safetensors").write_bytes(b"of another run")
    with pytest.raises(Interrupted):
        train(recipe, pictures(), stopped, device="cpu", on_report=press)
    train(recipe, pictures(), stopped, resume=True, device="cpu")
    assert digest(stopped) == digest(undisturbed)
    one, other = (list_snapshots(folder / "snapshots") for folder in (undisturbed, stopped))
    assert list(one) == list(other) == [5, 10, 15, 20]
    assert all(one[step].read_bytes() == other[step].read_bytes() for step in one)
    made = average(stopped, 0.08, tmp_path / "averaged")
    assert made.missed < 0.1
    model = load(made.model)
    assert model.bundle.card["average"]["length"] == 0.08
    assert bool(model.generate(n=1, steps=2).isfinite().all())
