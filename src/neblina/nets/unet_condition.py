"""The U-Net of latent diffusion: it reads a text by cross-attention, and whatever else it is told beside the time.

Stable Diffusion 1 and 2, SDXL and its refiner, the first latent diffusion models, inpainting and the upscalers are
configurations of it. Parameter names are those of diffusers' UNet2DConditionModel, so weights load both ways.

Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, section 3.3.
Podell et al. SDXL. ICLR 2024, section 2.2 (the numbers about sizes).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from neblina.core.errors import SettingError
from neblina.nets.blocks import BlockStyle, DownLevel, ReadingMiddle, UpLevel, activations
from neblina.nets.embeddings import RandomFourier, Sinusoidal, TimeMLP
from neblina.nets.label_embeddings import LABELS, Room
from neblina.nets.levels import READING_DOWN, READING_MIDDLE, READING_UP
from neblina.nets.network import Network
from neblina.nets.transformer import SpatialTransformer, TransformerStyle
from neblina.nets.unet_condition_config import UNetConditionConfig


class UNetCondition(Network):
    """net(x, time, labels=, text=, pooled=, sizes=) -> prediction of shape (B, out_channels, H, W)."""

    def __init__(self, config: UNetConditionConfig) -> None:
        super().__init__()
        self.config: UNetConditionConfig = config
        widths = config.block_out_channels
        self.conv_in = _convolution(config.in_channels, widths[0], config.conv_in_kernel)
        self._add_embeddings(config)
        style = BlockStyle(
            time_channels=config.embedding_channels * (2 if config.class_embeddings_concat else 1),
            groups=_groups(config),
            eps=config.norm_eps,
            activation=config.act_fn.lower(),
            dropout=config.dropout,
            scale_shift=config.resnet_time_scale_shift == "scale_shift",
            head_dim=None,
        )
        self._add_levels(config, style)
        self.conv_norm_out = nn.GroupNorm(_groups(config), widths[0], config.norm_eps)
        self.conv_act = activations[config.act_fn.lower()]()
        self.conv_out = _convolution(widths[0], config.out_channels, config.conv_out_kernel)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        labels: Tensor | None = None,
        text: Tensor | None = None,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """Predict.

        Args:
            x: shape (B, in_channels, H, W), of any size that is at least one place wide at the lowest level.
            time: shape (B,), float32, in the unit of the clock it was trained with.
            labels: rows of the class embedding, shape (B,); or what else class_embed_type reads.
            text: shape (B, L, D).
            pooled: the vector of the whole text, shape (B, P).
            sizes: numbers about the picture, shape (B, N).
        Raises:
            SettingError: something is missing, not wanted or of another width.
        """
        self._check(x, labels=labels, text=text, pooled=pooled, sizes=sizes)
        if self.config.center_input_sample:
            x = 2 * x - 1
        embedded = self._embed(time.expand(len(x)), x.dtype, labels, pooled, sizes)
        if text is not None and self.encoder_hid_proj is not None:
            text = self.encoder_hid_proj(text)
        x = self.conv_in(x)
        kept = [x]
        for level in self.down_blocks:
            x, made = level(x, embedded, text)
            kept += made
            del made
        if self.mid_block is not None:
            x = self.mid_block(x, embedded, text)
        for level in self.up_blocks:
            x = level(x, kept, embedded, text)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out

    def _embed(
        self, time: Tensor, dtype: torch.dtype, labels: Tensor | None, pooled: Tensor | None, sizes: Tensor | None
    ) -> Tensor:
        """The embedding that every residual block reads, shape (B, time channels)."""
        embedded: Tensor = self.time_embedding(self.time_proj(time).to(dtype))
        if labels is not None:
            told = self.class_embedding(LABELS[self.config.class_embed_type].reads(labels, self.time_proj, dtype))
            embedded = torch.cat([embedded, told], dim=1) if self.config.class_embeddings_concat else embedded + told
        if pooled is not None and sizes is not None:
            numbers = self.add_time_proj(sizes.flatten()).reshape(len(sizes), -1)
            embedded = embedded + self.add_embedding(torch.cat([pooled.to(dtype), numbers.to(dtype)], dim=1))
        return embedded if self.time_embed_act is None else self.time_embed_act(embedded)

    def _check(self, x: Tensor, **given: Tensor | None) -> None:
        config = self.config
        wanted = {
            "labels": config.labelled,
            "text": config.wants.text is not None,
            "pooled": config.addition_embed_type is not None,
            "sizes": config.addition_embed_type is not None,
        }
        for name, want in wanted.items():
            if want != (given[name] is not None):
                raise SettingError(f"this network needs {name}" if want else f"this network takes no {name}")
        if (text := given["text"]) is not None and text.shape[-1] != config.wants.text:
            raise SettingError(f"this network reads texts {config.wants.text} wide, not {text.shape[-1]}")
        if (pooled := given["pooled"]) is not None and (sizes := given["sizes"]) is not None:
            room = config.projection_class_embeddings_input_dim
            width = pooled.shape[1] + sizes.shape[1] * (config.addition_time_embed_dim or 0)
            if width != room:
                raise SettingError(
                    f"a pooled text of {pooled.shape[1]} and {sizes.shape[1]} sizes make {width} numbers, and this "
                    f"network's projection_class_embeddings_input_dim is {room}"
                )
        if x.shape[1] != config.in_channels:
            raise SettingError(f"this network takes {config.in_channels} channels, not {x.shape[1]}")
        smallest = 1 if config.downsample_padding else 2 ** (len(config.block_out_channels) - 1)
        if min(x.shape[-2:]) < smallest:
            raise SettingError(f"{x.shape[2]}x{x.shape[3]} is too small for this network: take at least {smallest}")

    def _add_embeddings(self, config: UNetConditionConfig) -> None:
        channels = config.embedding_channels
        self.time_proj = _WAVES[config.time_embedding_type](config)
        activation = activations[config.act_fn.lower()]
        last = nn.Identity if config.timestep_post_act is None else activations[config.timestep_post_act.lower()]
        self.time_embedding = TimeMLP(self.time_proj.width, channels, activation, last)
        act = config.time_embedding_act_fn
        self.time_embed_act = None if act is None else activations[act.lower()]()
        told = config.projection_class_embeddings_input_dim or 0
        if config.labelled:
            room = Room(channels, config.num_class_embeds or 0, self.time_proj.width, told, activation)
            self.class_embedding = LABELS[config.class_embed_type].build(room)
        if config.addition_embed_type is not None:
            self.add_time_proj = Sinusoidal(
                config.addition_time_embed_dim or 0, cos_first=config.flip_sin_to_cos, shift=config.freq_shift
            )
            self.add_embedding = TimeMLP(told, channels)
        self.encoder_hid_proj = (
            nn.Linear(config.encoder_hid_dim, config.level("cross_attention_dim")[0])
            if config.encoder_hid_dim is not None
            else None
        )

    def _add_levels(self, config: UNetConditionConfig, style: BlockStyle) -> None:
        widths, layers = config.block_out_channels, config.level("layers_per_block")
        heads, texts = config.level("attention_head_dim"), config.level("cross_attention_dim")
        text_only = config.level("only_cross_attention")
        down_depths, middle_depth, up_depths = config.depths

        def transformers(level: int, depths: Sequence[int], *, text_only: bool) -> list[nn.Module]:
            look = TransformerStyle(
                heads[level], texts[level], style.groups, text_only=text_only, linear=config.use_linear_projection
            )
            return [SpatialTransformer(widths[level], depth, look) for depth in depths]

        final = len(widths) - 1
        self.down_blocks = nn.ModuleList()
        for number, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
            given = widths[max(number - 1, 0)]
            reads = READING_DOWN[kind].reads
            self.down_blocks.append(
                DownLevel(
                    [(given if layer == 0 else width, width) for layer in range(layers[number])],
                    replace(style, head_dim=heads[number]),
                    attend=READING_DOWN[kind].attends,
                    halve=number < final,
                    padding=config.downsample_padding,
                    readers=transformers(number, down_depths[number], text_only=text_only[number]) if reads else (),
                )
            )
        self.mid_block = None
        if config.mid_block_type is not None:
            reads = READING_MIDDLE[config.mid_block_type].reads
            reader = transformers(final, [middle_depth], text_only=False)[0] if reads else None
            scaled = replace(style, output_scale=config.mid_block_scale_factor)
            self.mid_block = ReadingMiddle(widths[-1], scaled, reader)
        self.up_blocks = nn.ModuleList()
        for number, kind in enumerate(config.up_block_types):
            level = final - number
            width, above, below = widths[level], widths[max(level - 1, 0)], widths[min(level + 1, final)]
            last = layers[level]
            reads = READING_UP[kind].reads
            self.up_blocks.append(
                UpLevel(
                    [
                        ((below if layer == 0 else width) + (above if layer == last else width), width)
                        for layer in range(last + 1)
                    ],
                    # diffusers counts the levels of AttnUpBlock2D's head widths from the other end
                    replace(style, head_dim=heads[number]),
                    attend=READING_UP[kind].attends,
                    double=number < final,
                    readers=transformers(level, up_depths[number], text_only=text_only[level]) if reads else (),
                )
            )


_WAVES: dict[str, Callable[[UNetConditionConfig], Sinusoidal | RandomFourier]] = {
    "positional": lambda config: Sinusoidal(
        config.block_out_channels[0], cos_first=config.flip_sin_to_cos, shift=config.freq_shift
    ),
    "fourier": lambda config: RandomFourier(
        config.embedding_channels // 2, 1.0, log=False, cos_first=config.flip_sin_to_cos
    ),
}


def _convolution(given: int, made: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(given, made, kernel, padding=(kernel - 1) // 2)


def _groups(config: UNetConditionConfig) -> int:
    return config.norm_num_groups or 1
