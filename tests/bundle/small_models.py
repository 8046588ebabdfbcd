"""Small random models of every family, in diffusers' and transformers' own classes."""

from typing import Any

import torch
from transformers import CLIPTextConfig

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


def unet_config(channels: list[int], crossing: list[bool], **more: Any) -> dict[str, Any]:
    return {
        "sample_size": 8,
        "block_out_channels": channels,
        "down_block_types": [CROSS if cross else PLAIN for cross in crossing],
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossing)],
        "layers_per_block": 1,
        **more,
    }


SD1 = unet_config([32, 64], [True, False], cross_attention_dim=64, attention_head_dim=8)
SD2 = unet_config(
    [64, 128], [True, False], cross_attention_dim=64, attention_head_dim=[1, 2], use_linear_projection=True
)
UPSCALER = unet_config(
    [32, 64, 96],
    [False, True, True],
    cross_attention_dim=96,
    attention_head_dim=8,
    use_linear_projection=True,
    only_cross_attention=[True, True, False],
    in_channels=7,
    num_class_embeds=10,
)
ADDED = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
SDXL = unet_config(
    [64, 64, 128],
    [False, True, True],
    cross_attention_dim=192,
    attention_head_dim=[1, 1, 2],
    transformer_layers_per_block=[1, 2, 3],
    projection_class_embeddings_input_dim=48 + 64,
    **ADDED,
)
REFINER = unet_config(
    [64, 64, 128, 128],
    [False, True, True, False],
    cross_attention_dim=64,
    attention_head_dim=[1, 1, 2, 2],
    transformer_layers_per_block=2,
    projection_class_embeddings_input_dim=40 + 64,
    **ADDED,
)
VAE: dict[str, Any] = {
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
}


def text_config(width: int, act: str = "quick_gelu", **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=529,  # as many as the small tokenizer of the encoders has tokens
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        hidden_act=act,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
        **more,
    )


def made(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return (kind(config) if isinstance(config, CLIPTextConfig) else kind(**config)).eval()
