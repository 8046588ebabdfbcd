"""The table of components: what each class that a folder names is here.

A network or an autoencoder is a configuration and a module built from it; both carry the ecosystem's names, so that
reading a folder is reading two files. A new one is its file and one line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neblina.bundle.files import read_json, write_json
from neblina.bundle.pipelines import Pipeline
from neblina.bundle.weights import STEM, empty_parameters, has_weights, load_weights
from neblina.codecs.codec import Codec
from neblina.codecs.kl import KLCodec
from neblina.codecs.tiny import TinyCodec
from neblina.codecs.vq import VQCodec
from neblina.core.errors import CheckpointError, SettingError
from neblina.core.registry import Registry
from neblina.core.shards import Filing, write_weights
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.nets.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from neblina.nets.dit import DiT, DiTConfig
from neblina.nets.labelled import ClassEmbedder, ClassEmbedderConfig, LabelledUNet
from neblina.nets.learned_null import LearnedNull, LearnedNullConfig
from neblina.nets.pixel_unet import PixelUNet, PixelUNetConfig
from neblina.nets.text_dit import TextDiT
from neblina.nets.text_dit_config import TextDiTConfig
from neblina.nets.tiny_autoencoder import AutoencoderTiny, AutoencoderTinyConfig
from neblina.nets.token_config import SequenceTransformerConfig, TokenTransformerConfig
from neblina.nets.token_transformer import TokenTransformer
from neblina.nets.unet import UNet, UNetConfig
from neblina.nets.unet_condition import UNetCondition
from neblina.nets.unet_condition_config import UNetConditionConfig
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig


@dataclass(frozen=True)
class Kind:
    """A class of component.

    Attributes:
        config: reads a config.json, refusing what it does not know.
        build: the module of a configuration.
        codec: the codec around the module, None for a denoising network.
    """

    config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any], nn.Module]
    codec: Callable[[Any], Codec] | None = None


def _transformer_config(config: Mapping[str, Any]) -> DiTConfig | TokenTransformerConfig:
    """Of either network that this name stands for: over tokens, or, under its former name, of patches."""
    if config.get("num_vector_embeds") is not None:
        return TokenTransformerConfig.from_dict(config)
    return DiTConfig.from_dict(config)


def _transformer(config: DiTConfig | TokenTransformerConfig) -> DiT | TokenTransformer:
    return TokenTransformer(config) if isinstance(config, TokenTransformerConfig) else DiT(config)


kinds: Registry[Kind] = Registry("class of component that this version opens")
kinds.add(Kind(UNetConfig.from_dict, UNet), "UNet2DModel")
kinds.add(Kind(UNetConditionConfig.from_dict, UNetCondition), "UNet2DConditionModel")
kinds.add(Kind(ClassEmbedderConfig.from_dict, ClassEmbedder), "ClassEmbedder")
kinds.add(Kind(DiTConfig.from_dict, DiT), "DiTTransformer2DModel")
kinds.add(Kind(TextDiTConfig.from_dict, TextDiT), "PixArtTransformer2DModel")
kinds.add(Kind(_transformer_config, _transformer), "Transformer2DModel")
kinds.add(Kind(SequenceTransformerConfig.from_dict, TokenTransformer), "SequenceTransformer")
kinds.add(Kind(PixelUNetConfig.from_dict, PixelUNet), "PixelUNet")
kinds.add(Kind(AutoregressiveConfig.from_dict, AutoregressiveTransformer), "AutoregressiveTransformer")
kinds.add(Kind(LearnedNullConfig.from_dict, LearnedNull), "LearnedClassifierFreeSamplingEmbeddings")
kinds.add(Kind(AutoencoderKLConfig.from_dict, AutoencoderKL, KLCodec), "AutoencoderKL")
kinds.add(Kind(VQConfig.from_dict, VQAutoencoder, VQCodec), "VQModel")
kinds.add(Kind(AutoencoderTinyConfig.from_dict, AutoencoderTiny, TinyCodec), "AutoencoderTiny")


@dataclass(frozen=True)
class Opening:
    """How components are opened.

    Attributes:
        variant: of the weight files, such as "fp16"; None for the plain ones.
        dtype: of the weights in memory.
        device: where they go.
        mixed: whether a component that lacks the variant is read from its plain files.
    """

    variant: str | None = None
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    mixed: bool = False

    def variant_in(self, folder: Path, stem: str = STEM) -> str | None:
        """The variant to read in a component's folder."""
        return None if self.mixed and not has_weights(folder, stem, self.variant) else self.variant


def codec_of(module: nn.Module, name: str) -> Codec:
    """The codec around an autoencoder of class `name`.

    Raises:
        CheckpointError: it is no autoencoder.
    """
    wrap = kinds[name].codec
    if wrap is None:
        raise CheckpointError(f"a {name} is no autoencoder")
    return wrap(module)


def codec_in(pipeline: Pipeline, codec: Codec) -> Codec:
    """A codec as a pipeline uses it: how it scales latents, and whether it tries float16."""
    if isinstance(codec, VQCodec):
        return replace(codec, scaled=pipeline.scaled, upcasts=pipeline.upcasts)
    return replace(codec, upcasts=pipeline.upcasts) if isinstance(codec, KLCodec) else codec


def labelled(net: nn.Module, embedder: nn.Module, where: str) -> LabelledUNet:
    """A network that reads text, told classes.

    Raises:
        CheckpointError: they are not of the kinds that go together.
    """
    if not isinstance(net, UNetCondition) or not isinstance(embedder, ClassEmbedder):
        raise CheckpointError(f"{where}: a {type(net).__name__} is not told classes by a {type(embedder).__name__}")
    return LabelledUNet(net, embedder).eval()


def read_component(folder: Path, opening: Opening) -> nn.Module:
    """The module in a component's folder, in evaluation mode.

    Raises:
        CheckpointError: a file is missing, cut short or does not fit, or a class that is not opened here.
        SettingError: a configuration with a field or value that this package does not have.
    """
    config = read_json(folder / "config.json")
    module = build_module(config, str(folder / "config.json"))
    variant = opening.variant_in(folder)
    load_weights(module, folder, stem=STEM, variant=variant, dtype=opening.dtype, device=opening.device)
    return module


def build_module(config: Mapping[str, Any], where: str) -> nn.Module:
    """The module of a configuration that names its class, in evaluation mode and without weights.

    Raises:
        CheckpointError: no class, or one that is not opened here.
        SettingError: a field or value that this package does not have.
    """
    name = config.get("_class_name")
    if not isinstance(name, str):
        raise CheckpointError(f"{where} does not say its _class_name")
    try:
        kind = kinds[name]
    except SettingError as error:
        raise CheckpointError(f"{where}: {error}") from error
    with empty_parameters():
        return kind.build(kind.config(config)).eval()


def write_component(module: nn.Module, folder: Path, filing: Filing | None = None) -> None:
    """Write a component's configuration and weights."""
    write_json(folder / "config.json", module.config.to_dict())  # type: ignore[union-attr, operator]
    write_weights(module.state_dict(), folder, STEM, filing)
