"""A patch discriminator sees patches, of the sides that its configuration says."""

import pytest
import torch
from torch import nn

from neblina.nets.patch_discriminator import PatchConfig, PatchDiscriminator


@pytest.mark.parametrize(("layers", "patch"), [(0, 7), (1, 16), (2, 34), (3, 70)])
def test_a_score_depends_on_a_patch_of_the_side_that_is_said(layers: int, patch: int) -> None:
    torch.manual_seed(0)
    config = PatchConfig(1, 2, layers)
    assert config.patch == patch
    net = PatchDiscriminator(config)
    plain = nn.Sequential(*(one for one in net.layers if not isinstance(one, nn.GroupNorm)))  # its means see all
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    scores = plain(x)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == patch


def test_what_it_says_of_a_picture_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(PatchConfig(3, 12, 1))
    x = torch.randn(4, 3, 20, 20)
    assert net(x).shape == (4, 1, 8, 8)
    assert torch.allclose(net(x)[1:2], net(x[1:2]), atol=1e-5)
