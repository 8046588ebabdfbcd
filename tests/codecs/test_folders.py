"""An autoencoder's folder is diffusers' own, both ways."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from neblina.bundle.components import Opening, kinds, read_component, write_component
from neblina.codecs.codec import Codec

HALVES: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "norm_num_groups": 4,
    "scaling_factor": 0.5,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "AutoencoderKL": HALVES,
    "VQModel": {**HALVES, "num_vq_embeddings": 32},
    "AutoencoderTiny": {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
        "scaling_factor": 0.5,
    },
}


def their_picture(theirs: Any, latents: Tensor) -> Tensor:
    picture: Tensor = theirs.decode(latents / theirs.config.scaling_factor).sample
    return picture


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.no_grad()
def test_what_diffusers_saves_opens_and_what_is_saved_diffusers_opens(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = getattr(diffusers, family)(**FAMILIES[family]).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    net = read_component(tmp_path / "theirs", Opening())
    around = kinds[family].codec
    assert around is not None
    codec: Codec = around(net)
    latents = torch.randn(2, codec.channels, 5, 3)
    assert torch.allclose(codec.decode(latents), their_picture(theirs, latents), atol=1e-5)

    write_component(net, tmp_path / "ours")
    again = getattr(diffusers, family).from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(their_picture(again, latents), their_picture(theirs, latents))


@pytest.mark.parametrize("family", ["AutoencoderKL", "VQModel"])
@torch.no_grad()
def test_attention_under_its_old_names_opens_too(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = getattr(diffusers, family)(**FAMILIES[family]).eval()
    theirs.save_pretrained(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = theirs.state_dict()
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in state.items()}
    assert set(state) != set(theirs.state_dict())
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    net = read_component(tmp_path, Opening())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
