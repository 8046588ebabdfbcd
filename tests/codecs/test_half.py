"""Half precision: each family decodes in the precision that its pipeline in diffusers does, and nothing overflows."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import sd1, sdxl
from torch import Tensor, nn

from neblina.codecs.kl import KLCodec
from neblina.core.errors import DivergenceError
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.tasks.checks.latents import LARGEST, measure
from neblina.tasks.loading import load


def small(**settings: Any) -> AutoencoderKL:
    """An autoencoder of random weights."""
    torch.manual_seed(0)
    blocks: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    }
    return AutoencoderKL(AutoencoderKLConfig(**blocks, **settings)).eval()


def precisions(net: nn.Module) -> list[torch.dtype]:
    """The precisions that a network is asked in from now on."""
    seen: list[torch.dtype] = []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    return seen


@torch.no_grad()
@pytest.mark.parametrize(("build", "wide"), [(sd1, False), (sdxl, True)])
def test_a_family_decodes_float16_in_the_precision_of_its_pipeline(
    build: Callable[[Path], Any], wide: bool, tmp_path: Path
) -> None:
    theirs = build(tmp_path).to(torch.float16)
    assert theirs.vae.config.force_upcast  # of both: SDXL's pipeline alone looks at it
    theirs.save_pretrained(tmp_path / "model")
    codec = load(tmp_path / "model", device="cpu", dtype="fp16").bundle.codec
    assert isinstance(codec, KLCodec)
    seen = precisions(codec.net.decoder.conv_in)
    latents = torch.randn(2, 4, 8, 8).half()
    vae = theirs.vae.float() if wide else theirs.vae
    expected = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
    made = codec.decode(latents)
    assert seen == [torch.float32 if wide else torch.float16]
    assert float((made - expected).abs().max()) <= (1e-5 if wide else 2e-3) * float(expected.abs().max())


@torch.no_grad()
def test_the_copy_in_float32_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, copied, deepcopy = KLCodec(small().half()), [], copy.deepcopy

    def counted(net: nn.Module) -> nn.Module:
        copied.append(net)
        return deepcopy(net)

    monkeypatch.setattr("neblina.codecs.running.copy.deepcopy", counted)
    latents = torch.randn(1, 4, 4, 4)
    first = codec.decode(latents)
    assert torch.equal(codec.decode(latents), first)
    codec.encode(first)
    assert copied == [codec.net]


@torch.no_grad()
def test_what_overflows_after_all_runs_in_float32_where_the_configuration_says_that_it_may() -> None:
    def overflowing(**settings: Any) -> Tensor:
        net = small(**settings)
        net.decoder.conv_out.weight *= 1e5  # the weights themselves are within float16
        return KLCodec(net.half(), upcasts=False).decode(torch.ones(1, 4, 3, 3))

    assert bool(overflowing(force_upcast=True).isfinite().all())
    assert float(overflowing(force_upcast=True).abs().max()) > torch.finfo(torch.float16).max
    with pytest.raises(DivergenceError, match="float16 overflowed"):
        overflowing(force_upcast=False)


def test_a_look_inside_sees_what_a_copy_in_float32_computes() -> None:
    net = small(force_upcast=True)
    with torch.no_grad():
        net.decoder.conv_out.weight *= 1e5
    assert measure(KLCodec(net.half())).largest > LARGEST
