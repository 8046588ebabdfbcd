"""What codecs minimise: every term against its formula, and where gradients go."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from neblina.core.errors import SettingError
from neblina.nets.vq_autoencoder import Codebook
from neblina.objectives.adversarial import DELTA, LARGEST, adaptive_weight, discriminator_loss, fooling_loss
from neblina.objectives.codec import (
    codebook_loss,
    commitment_loss,
    divergence_loss,
    draw_latents,
    perplexity,
    quantise,
    reconstruction_loss,
    usage,
)
from neblina.objectives.perceptual import load_perceptual, perceptual_distance

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


def test_the_decoders_gradient_with_respect_to_the_codes_arrives_at_the_encoder() -> None:
    latents, book = random(2, 3, 4, 4, grad=True), Codebook(8, 3)
    upstream = random(2, 3, 4, 4, seed=1)
    found = quantise(book, latents)
    assert torch.allclose(found.passed, book.look_up(found.codes), atol=1e-6)  # what is decoded are the codes
    (found.passed * upstream).sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, upstream)
    assert book.embedding.weight.grad is None


def test_codes_are_the_nearest_entries() -> None:
    latents, book = random(2, 3, 4, 5), Codebook(8, 3)
    nn.init.normal_(book.embedding.weight)
    codes = quantise(book, latents).codes
    for place in ((0, 0, 0), (1, 3, 4), (0, 2, 3)):
        distances = (latents[place[0], :, place[1], place[2]] - book.embedding.weight).square().sum(1)
        assert int(codes[place]) == int(distances.argmin())


def test_the_two_halves_of_the_codebooks_loss_are_one_number_and_move_one_side_each() -> None:
    latents, book = random(2, 3, 4, 4, grad=True), Codebook(8, 3)
    found = quantise(book, latents)
    expected = float((latents - book.look_up(found.codes)).square().mean().detach())
    codebook_loss(found).backward()
    assert latents.grad is None
    assert book.embedding.weight.grad is not None
    book.embedding.weight.grad = None
    found = quantise(book, latents)
    commitment_loss(found).backward()
    assert latents.grad is not None
    assert book.embedding.weight.grad is None
    for loss in (codebook_loss(found), commitment_loss(found)):
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_the_divergence_is_that_of_torchs_gaussians_per_value_of_the_picture() -> None:
    mean, log_variance = random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1)
    loss = divergence_loss(torch.cat([mean, log_variance], 1), values=192)
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert float(loss) == pytest.approx(float(exact.sum()) / 3 / 192, rel=1e-6)
    assert float(divergence_loss(torch.zeros(1, 4, 2, 2), 12)) == 0


def test_latents_are_drawn_at_the_encoders_mean_and_width() -> None:
    noise = random(20_000, 1, 1, 1)
    drawn = draw_latents(torch.tensor([3.0, math.log(0.25)])[None, :, None, None].expand(20_000, 2, 1, 1), noise)
    assert torch.allclose(drawn, 3 + 0.5 * noise)


@pytest.mark.parametrize("entries", [2, 128])
def test_the_perplexity_of_a_codebook_used_uniformly_is_its_size(entries: int) -> None:
    counts = torch.full((entries,), 7)
    assert perplexity(counts) == pytest.approx(entries, rel=1e-12)
    assert usage(counts) == 1


def test_the_perplexity_of_one_code_is_one_and_of_a_skewed_use_the_exponent_of_its_entropy() -> None:
    assert perplexity(torch.tensor([0, 5, 0, 0])) == 1
    assert usage(torch.tensor([0, 1, 0, 0])) == 0.25
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(torch.tensor([3, 0, 1])) == pytest.approx(math.exp(entropy), rel=1e-12)


def test_reconstruction_is_the_mean_of_absolute_or_squared_differences() -> None:
    x = random(2, 1, 4, 4)
    assert float(reconstruction_loss(x + 0.5, x, "l1")) == pytest.approx(0.5)
    assert float(reconstruction_loss(x + 0.5, x, "l2")) == pytest.approx(0.25)


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_norms() -> None:
    """For a linear last layer y = W h both gradients are known: ∇ of ½‖y‖² is Σ y hᵀ, of −Σ a·y it is −a Σ hᵀ."""
    weight, h, a = random(3, 4, grad=True), random(5, 4, seed=1), random(3, seed=2)
    y = h @ weight.T
    ratio = adaptive_weight(0.5 * y.square().sum(), -(y @ a).sum(), weight)
    expected = (y.T @ h).norm() / (torch.outer(a, h.sum(0)).norm() + DELTA)
    assert float(ratio) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert not ratio.requires_grad
    assert weight.grad is None
    assert float(adaptive_weight(y.sum(), 0 * y.sum(), weight)) == LARGEST


def test_the_hinge_loss_stops_where_the_discriminator_is_sure() -> None:
    assert float(discriminator_loss(torch.tensor([2.0, 1.0]), torch.tensor([-1.0, -3.0]))) == 0
    assert float(discriminator_loss(torch.tensor([0.0, 1.0]), torch.tensor([0.5, -1.0]))) == 0.5 * (0.5 + 0.75)
    assert float(fooling_loss(torch.tensor([1.0, 2.0]))) == -1.5


def test_the_perceptual_distance_does_not_see_how_long_features_are() -> None:
    one, other = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    assert float(perceptual_distance([one], [5 * one])) == pytest.approx(0, abs=1e-12)
    assert float(perceptual_distance([one], [-one])) == pytest.approx(4, rel=1e-5)  # |f + f|² of length 1
    cosines = torch.cosine_similarity(one, other, dim=1)
    expected = (2 - 2 * cosines).mean()
    assert float(perceptual_distance([one, one], [other, other])) == pytest.approx(2 * float(expected), rel=1e-5)


class Two(nn.Module):
    """Features of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x)
        return first, self.second(first.relu())


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(2, 3)


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


def traced(net: nn.Module, place: Path) -> str:
    torch.jit.save(torch.jit.trace(net, torch.zeros(2, 1, 8, 8)), place)  # type: ignore[no-untyped-call]
    return str(place)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_an_extractor_is_frozen_and_lets_the_gradient_through(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Two()
    extractor = load_perceptual(traced(net, tmp_path / "net.pt"), (1, 8, 8), CPU)
    made, pictures = random(3, 1, 8, 8, grad=True), random(3, 1, 8, 8, seed=1)
    loss = extractor(made, pictures)
    loss.backward()
    expected = perceptual_distance(list(net(made)), list(net(pictures)))
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_an_extractor_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"nothing\.pt does not exist"):
        load_perceptual(str(tmp_path / "nothing.pt"), (1, 8, 8), CPU)
    (tmp_path / "text.pt").write_text("features")
    with pytest.raises(SettingError, match=r"text\.pt is no TorchScript module"):
        load_perceptual(str(tmp_path / "text.pt"), (1, 8, 8), CPU)
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(SettingError, match=r"weights\.pt is no TorchScript module"):
        load_perceptual(str(tmp_path / "weights.pt"), (1, 8, 8), CPU)
    with pytest.raises(SettingError, match=r"cannot see pictures of shape \(3, 8, 8\)"):
        load_perceptual(traced(Two(), tmp_path / "grey.pt"), (3, 8, 8), CPU)
    with pytest.raises(SettingError, match="lets no gradient through"):
        load_perceptual(traced(Constant(), tmp_path / "constant.pt"), (1, 8, 8), CPU)
    with pytest.raises(SettingError, match=r"makes \(\) of 2 pictures"):
        load_perceptual(traced(Whole(), tmp_path / "whole.pt"), (1, 8, 8), CPU)
