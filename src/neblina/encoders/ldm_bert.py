"""The text encoder of the original latent-diffusion text-to-image: a BERT-like transformer, trained with the U-Net.

Layers of attention and a perceptron, each normalised before and added after; every token sees every other, the padding
included. Configuration and parameter names are those of diffusers' LDMBertModel.

Rombach, Blattmann, Lorenz, Esser, Ommer. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, §4.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neblina.core.errors import SettingError, choose

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
# what every configuration of transformers may hold, and what changes nothing here
_OF_EVERY_MODEL = (
    "architectures",
    "dtype",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "model_type",
    "num_hidden_layers",
    "torch_dtype",
    "transformers_version",
)


@dataclass(frozen=True)
class LDMBertConfig:
    """The configuration, field for field diffusers'; only what each does to us is said here.

    Attributes:
        dropout, attention_dropout, activation_dropout, encoder_layerdrop, classifier_dropout, init_std: of training;
            they change nothing when a text is read.
        use_cache, pad_token_id: of decoders and of the tokenizer; nothing here.
        scale_embedding: refused if true: diffusers has the field and does not scale.
    """

    vocab_size: int = 30522
    max_position_embeddings: int = 77
    encoder_layers: int = 32
    encoder_ffn_dim: int = 5120
    encoder_attention_heads: int = 8
    head_dim: int = 64
    encoder_layerdrop: float = 0.0
    activation_function: str = "gelu"
    d_model: int = 1280
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    classifier_dropout: float = 0.0
    scale_embedding: bool = False
    use_cache: bool = True
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        """Refuse what the network cannot honour.

        Raises:
            SettingError: naming the field.
        """
        choose("activation (activation_function)", self.activation_function, _ACTIVATIONS)
        if self.scale_embedding:
            raise SettingError("LDMBertModel config: scale_embedding = True is not supported, only False is")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "LDMBertConfig":
        """Read a config.json; keys that begin with an underscore are its writer's own.

        Raises:
            SettingError: an unknown or unsupported field.
        """
        own = {field.name for field in fields(cls)}
        given = {key: value for key, value in config.items() if not key.startswith("_") and key not in _OF_EVERY_MODEL}
        for key in given:
            choose("field of an LDMBertModel config", key, own)
        if config.get("num_hidden_layers", given.get("encoder_layers")) != given.get("encoder_layers"):
            raise SettingError(
                f"LDMBertModel config: num_hidden_layers is {config['num_hidden_layers']} and encoder_layers "
                f"{given.get('encoder_layers')}; they are the same number"
            )
        return cls(**given)


class LDMBertModel(nn.Module):
    """A text as one vector a token."""

    def __init__(self, config: LDMBertConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Encoder(config)
        self.to_logits = nn.Linear(config.d_model, config.vocab_size)  # of its training; part of every checkpoint

    def forward(self, tokens: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Read tokens of shape (B, L).

        Returns:
            The vectors before the first layer and after each, and the last of them normalised; shape (B, L, D).
        """
        states: tuple[Tensor, ...]
        last: Tensor
        states, last = self.model(tokens)
        return states, last


class _Encoder(nn.Module):
    def __init__(self, config: LDMBertConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        self.layers = nn.ModuleList([_Layer(config) for _ in range(config.encoder_layers)])
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, tokens: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        states = [self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return tuple(states), self.layer_norm(states[-1])


class _Layer(nn.Module):
    def __init__(self, config: LDMBertConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.activation = _ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        x = x + self.fc2(self.activation(self.fc1(self.final_layer_norm(x))))
        if x.dtype == torch.float16:  # the residuals of the released model pass its largest number
            limit = torch.finfo(x.dtype).max - 1000
            x = x.clamp(-limit, limit)
        return x


class _Attention(nn.Module):
    """The heads together need not be as wide as the vectors, and only the last projection has a bias."""

    def __init__(self, config: LDMBertConfig) -> None:
        super().__init__()
        inner = config.encoder_attention_heads * config.head_dim
        self.heads = config.encoder_attention_heads
        self.k_proj = nn.Linear(config.d_model, inner, bias=False)
        self.v_proj = nn.Linear(config.d_model, inner, bias=False)
        self.q_proj = nn.Linear(config.d_model, inner, bias=False)
        self.out_proj = nn.Linear(inner, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.out_proj(seen.transpose(1, 2).flatten(-2))
        return attended
