"""The U-Net over levels of pixels: what it reads of a token, and what it says of one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neblina.bundle.components import Opening, read_component, write_component
from neblina.core.errors import SettingError
from neblina.nets.pixel_unet import PixelUNet, PixelUNetConfig, logistic_logits, said
from neblina.nets.unet import UNetConfig

LEVELS = 5


def config(logistic: bool = False, levels: int = LEVELS, **unet: Any) -> PixelUNetConfig:
    given: dict[str, Any] = {
        "sample_size": (4, 6),
        "in_channels": 2,
        "out_channels": said(levels, logistic),
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        **unet,
    }
    return PixelUNetConfig(UNetConfig(**given), levels, logistic)


def network(logistic: bool = False, **unet: Any) -> PixelUNet:
    torch.manual_seed(0)
    return PixelUNet(config(logistic, **unet)).eval().requires_grad_(False)


def tokens(masks: bool = False) -> Tensor:
    return torch.randint(LEVELS + masks, (3, 24), generator=torch.Generator().manual_seed(1))


TIME = torch.tensor([0.0, 4.0, 2.5])


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_a_logistic_is_the_difference_of_its_distribution_at_a_level_s_ends_truncated(levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    value, made = torch.rand(2, 7, generator=generator) * 2 - 1, torch.randn(2, 7, 2, generator=generator)
    centre = torch.tanh(value + made[..., 0]).double()[..., None]
    scale = (made[..., 1].double() - 2).exp()[..., None]
    at, half = torch.linspace(-1, 1, levels, dtype=torch.float64), 1 / (levels - 1)
    whole = torch.sigmoid((at + half - centre) / scale) - torch.sigmoid((at - half - centre) / scale)
    wanted = whole / whole.sum(-1, keepdim=True)
    assert torch.allclose(logistic_logits(value, made, levels).softmax(-1).double(), wanted, atol=1e-6)


@pytest.mark.parametrize("width", [-30.0, -8.0, 8.0, 30.0])
def test_a_logistic_of_any_width_is_finite_and_so_is_its_gradient(width: float) -> None:
    made = torch.tensor([[[-50.0, width], [0.1, width], [50.0, width]]], requires_grad=True)
    beliefs = logistic_logits(torch.tensor([[0.0, 1.0, -1.0]]), made, 256).log_softmax(-1)
    assert bool(beliefs.isfinite().all())
    beliefs[..., 17].sum().backward()
    assert made.grad is not None
    assert bool(made.grad.isfinite().all())


@pytest.mark.parametrize("logistic", [False, True])
def test_every_token_changes_what_is_said_and_every_sample_has_a_time_of_its_own(logistic: bool) -> None:
    net, x = network(logistic), tokens(masks=True)
    logits = net(x, TIME)
    assert logits.shape == (3, 24, LEVELS)
    for row in range(3):
        alone = net(x[row : row + 1], TIME[row : row + 1])
        assert torch.allclose(alone[0], logits[row], atol=1e-5)
    seen = [float((net(x.index_fill(1, torch.tensor([7]), token), TIME) - logits).abs().max()) for token in (0, 2, 5)]
    assert min(seen) > 1e-5


def test_a_mask_is_no_level() -> None:
    """The level in the middle is the number that a mask is read as; beside it stands that it is one."""
    net = network()
    middle, mask = (torch.full((1, 24), token) for token in (2, LEVELS))
    assert not torch.allclose(net(middle, TIME[:1]), net(mask, TIME[:1]))
    net.unet.conv_in.weight[:, 1] = 0
    assert torch.allclose(net(middle, TIME[:1]), net(mask, TIME[:1]))


def test_it_is_written_and_read_back(tmp_path: Path) -> None:
    net, labels = network(True, num_class_embeds=4), torch.tensor([3, 0, 1])
    write_component(net, tmp_path)
    again = read_component(tmp_path, Opening())
    assert isinstance(again, PixelUNet)
    assert again.config == net.config
    assert (again.config.grid, again.config.places, again.config.num_labels) == ((4, 6), 24, 4)
    assert torch.equal(again(tokens(), TIME, labels=labels), net(tokens(), TIME, labels=labels))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config(in_channels=1), "in_channels = 1 is not 2"),
        (lambda: config(out_channels=2), "out_channels = 2 is not 5"),
        (lambda: config(levels=1), "levels = 1, and a pixel has 2 or more"),
        (lambda: config(sample_size=None), "sample_size is missing"),
        (lambda: config(sample_size=(4, 5)), "no multiple of 2"),
        (lambda: PixelUNetConfig.from_dict({**config().to_dict(), "levels": "5"}), "levels = '5' is a whole number"),
        (lambda: PixelUNetConfig.from_dict({**config().to_dict(), "act": 5}), "Did you mean act_fn"),
        (lambda: network()(tokens()[:, 1:], TIME), "places for 24 tokens, and 23 are given"),
        (lambda: network()(tokens(), TIME, labels=torch.zeros(3)), "takes no labels"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()
