"""VQ-Diffusion as its release has it, small: the modules under their original names, and a `.pth` with a yaml of them.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from diffusers import VQModel
from original_layout import autoencoder
from torch import Tensor, nn

from neblina.tasks.token_model import TokenModel, load_tokens

WIDTH, HEADS, LAYERS, STEPS, TOKENS, SIDE, CLASSES, WORDS = 16, 2, 2, 10, 7, 4, 5, 77
CODEC: dict[str, Any] = {
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
    "vq_embed_dim": 3,
    "num_vq_embeddings": TOKENS,
    "scaling_factor": 1.0,
}


class Modulated(nn.Module):
    """A normalisation that a number modulates; a number behind the table is told its mean."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.emb, self.linear = nn.Embedding(rows, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor, number: Tensor) -> Tensor:
        rows = self.emb.weight
        told = rows.mean(0).expand(len(number), -1) if number[0] >= len(rows) else rows[number]
        scale, shift = self.linear(F.silu(told))[:, None].chunk(2, 2)
        out: Tensor = F.layer_norm(x, [WIDTH]) * (1 + scale) + shift
        return out


class Attention(nn.Module):
    def __init__(self, read: int) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(read, WIDTH), nn.Linear(read, WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, read: Tensor) -> Tensor:
        q, k, v = (
            y.unflatten(2, (HEADS, -1)).transpose(1, 2) for y in (self.query(x), self.key(read), self.value(read))
        )
        scores = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5).softmax(3)
        out: Tensor = self.proj((scores @ v).transpose(1, 2).flatten(2))
        return out


class CrossAttention(Attention):
    def __init__(self, read: int) -> None:
        super().__init__(read)
        self.register_buffer("mask", torch.ones(1, 1, SIDE**2, SIDE**2).tril())  # kept in files, and not looked at


class Gelu2(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ConvolutionalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, 4 * WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(4 * WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        places = x.transpose(1, 2).reshape(len(x), WIDTH, SIDE, SIDE)
        out: Tensor = self.conv2(Gelu2()(self.conv1(places)))
        return out.flatten(2).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, kind: str, labels: int) -> None:
        super().__init__()
        self.ln1 = Modulated(STEPS)
        if kind == "text":
            self.attn1, self.attn2, self.ln1_1 = Attention(WIDTH), CrossAttention(WIDTH), Modulated(STEPS)
        else:
            self.attn = Attention(WIDTH)
        self.ln2 = Modulated(labels) if kind == "class" else nn.LayerNorm(WIDTH)
        linear = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), Gelu2(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.0))
        self.mlp = linear if kind == "text" else ConvolutionalLayer()
        self.kind = kind

    def forward(self, x: Tensor, condition: Tensor, step: Tensor) -> Tensor:
        normed = self.ln1(x, step)
        x = x + (self.attn1 if self.kind == "text" else self.attn)(normed, normed)
        if self.kind == "text":
            x = x + self.attn2(self.ln1_1(x, step), condition)
        out: Tensor = x + self.mlp(self.ln2(x, condition) if self.kind == "class" else self.ln2(x))
        return out


class Contents(nn.Module):
    def __init__(self, places: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(TOKENS + 1, WIDTH)
        self.height_emb, self.width_emb = nn.Embedding(places, WIDTH), nn.Embedding(places, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        places = self.height_emb.weight[:, None] + self.width_emb.weight[None]
        out: Tensor = self.emb(x) + places.view(-1, WIDTH)[: x.shape[1]]
        return out


class Transformer(nn.Module):
    def __init__(self, kind: str, places: int, labels: int) -> None:
        super().__init__()
        self.content_emb = Contents(places)
        self.blocks = nn.Sequential(*[Block(kind, labels) for _ in range(LAYERS)])
        self.to_logits = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS))

    def forward(self, x: Tensor, condition: Tensor, step: Tensor) -> Tensor:
        hidden = self.content_emb(x)
        for block in self.blocks:
            hidden = block(hidden, condition, step)
        out: Tensor = self.to_logits(hidden)
        return out


class Diffusion(nn.Module):
    """What the averaged weights are the average of: a transformer, the schedule, and the text that says nothing."""

    def __init__(self, kind: str, labels: int = CLASSES) -> None:
        super().__init__()
        self.transformer = Transformer(kind, SIDE if kind == "text" else SIDE + 2, labels)
        self.empty_text_embed = nn.Parameter(torch.randn(WORDS, WIDTH, dtype=torch.float64))
        self.register_buffer("log_at", torch.zeros(STEPS))
        for parameter in self.transformer.parameters():  # loud, so that every part shows in the logits
            nn.init.normal_(parameter, std=0.3)


def codec(codes: int = TOKENS) -> Any:
    torch.manual_seed(5)
    made: Any = VQModel(**{**CODEC, "num_vq_embeddings": codes})
    nn.init.normal_(made.quantize.embedding.weight)
    return made.eval()


def state_of(diffusion: nn.Module, frozen: Any) -> dict[str, Tensor]:
    """As the release's model has it: the codec in two halves, each with the codebook."""
    state = {f"transformer.{name}": tensor for name, tensor in diffusion.state_dict().items()}
    for name, tensor in autoencoder(frozen.state_dict(), 2, prefix="").items():
        for half, parts in (("enc", ("encoder", "quant_conv", "quantize")), ("dec", ("decoder", "post_", "quantize"))):
            if name.startswith(parts):
                state[f"content_codec.{half}.{name}"] = tensor
    return state


_ROOT = "image_synthesis.modeling"
_TARGETS = {
    "text": ("Text2ImageTransformer", "selfcross", "PatchVQVAE"),
    "class": ("Condition2ImageTransformer", "selfcondition", "TamingVQVAE"),
    "none": ("UnCondition2ImageTransformer", "self", "TamingFFHQVQVAE"),
}


def settings_of(kind: str) -> dict[str, Any]:
    """The yaml's content."""
    target, attention, codec_target = _TARGETS[kind]
    net: dict[str, Any] = {
        "attn_type": attention,
        "n_layer": LAYERS,
        "content_seq_len": SIDE**2,
        "content_spatial_size": [SIDE, SIDE],
        "n_embd": WIDTH,
        "n_head": HEADS,
        "block_activate": "GELU2",
        "timestep_type": "adalayernorm",
        "mlp_hidden_times": 4,
    }
    if kind == "text":
        net |= {"condition_dim": WIDTH, "condition_seq_len": WORDS}
        condition: Any = _part(
            "CLIPTextEmbedding",
            embed_dim=WIDTH,
            normalize=True,
            pick_last_embedding=False,
            additional_last_embedding=False,
        )
    else:
        net |= {"mlp_type": "conv_mlp"}
        condition = _part("ClassEmbedding", num_embed=CLASSES, identity=True)
    if kind == "class":
        net |= {"class_type": "adalayernorm", "class_number": CLASSES}
    diffusion = {
        "diffusion_step": STEPS,
        "alpha_init_type": "alpha1",
        "transformer_config": _part(target, **net),
        "content_emb_config": _part(
            "DalleMaskImageEmbedding", num_embed=TOKENS, spatial_size=(SIDE, SIDE), pos_emb_type="embedding"
        ),
        **({} if kind == "none" else {"condition_emb_config": condition}),
    }
    return {
        "model": {
            "target": "DALLE",
            "params": {
                "content_codec_config": _part(codec_target, token_shape=[SIDE, SIDE], quantize_number=0),
                "diffusion_config": _part("DiffusionTransformer", **diffusion),
            },
        }
    }


def _part(target: str, **params: Any) -> dict[str, Any]:
    return {"target": f"{_ROOT}.{target}", "params": params}


def write(place: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any], **more: Any) -> Path:
    """`place` and the yaml of its name, whose tuples are tagged as the release's are."""
    torch.save({"last_epoch": 9, "model": dict(state), "optimizer": {"lr": 0.1}, **more}, place)
    place.with_suffix(".yaml").write_text(yaml.dump(dict(settings)), encoding="utf-8")
    return place


@cache
def diffusion(kind: str, labels: int = CLASSES, seed: int = 0) -> Diffusion:
    torch.manual_seed(seed)
    return Diffusion(kind, labels).eval()


def written(folder: Path, kind: str, *, labels: int = CLASSES, **more: Any) -> Path:
    """A whole model of a kind, as `folder/model.pth`."""
    return write(folder / "model.pth", state_of(diffusion(kind, labels), codec()), settings_of(kind), **more)


def opened(place: Path, kind: str, encoder: tuple[Any, Any, Path]) -> TokenModel:
    """By us, with the encoder where it reads text."""
    return load_tokens(place, device="cpu", text_encoder=encoder[2] if kind == "text" else None)
