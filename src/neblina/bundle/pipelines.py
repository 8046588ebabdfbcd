"""The table of model folders: what each class of pipeline in a `model_index.json` is made of.

A pipeline here is a description, not code: which component is the network, which the codec, which encode text, and what
is joined to the noisy latents. Everything else about a model is in its components' own configurations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neblina.core.registry import Registry
from neblina.encoders.families import LATENT_DIFFUSION, SDXL, STABLE_DIFFUSION, Family


@dataclass(frozen=True)
class Pipeline:
    """What a model folder is made of.

    Attributes:
        name: its class in `model_index.json`.
        network: the component that is asked.
        codec: the component between pictures and latents, None for a model of pictures themselves.
        texts: components that encode text, each with its tokenizer; the index may leave some empty.
        family: how they read it, None for a model that reads none.
        joined: what is joined to the noisy latents by channels: "mask" (where to paint, and the masked picture),
            "low resolution" (the small picture that is enlarged) or "depth"; None for nothing.
        embedder: the component with a vector a class, for a network that reads it as a text; None for none.
        scaled: whether latents are at the codec's scaling_factor.
        upcasts: whether float16 that the codec's configuration says to overflow is not tried.
        guidance: weight of classifier-free guidance when nobody says.
        settings: entries of `model_index.json` that are no components and are followed.
        other: the class that paints into pictures where this one does not, and the other way round; folders of the one
            kind of network under the other's name are published.
        tokens: whether the network is of tokens.
        repairs: fields of its scheduler that diffusers sets when it opens one, whatever the file says: those of the
            first published models were wrong.
    """

    name: str
    network: str = "unet"
    codec: str | None = None
    texts: tuple[tuple[str, str], ...] = ()
    family: Family | None = None
    joined: str | None = None
    embedder: str | None = None
    scaled: bool = True
    upcasts: bool = False
    guidance: float = 1.0
    settings: tuple[str, ...] = ()
    other: str | None = None
    tokens: bool = False
    repairs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text_parts(self) -> set[str]:
        """The components that encode text, and their tokenizers."""
        return {name for pair in self.texts for name in pair}


pipelines: Registry[Pipeline] = Registry("class of pipeline that this version opens")
_TEXT = (("text_encoder", "tokenizer"),)
_TEXTS = (*_TEXT, ("text_encoder_2", "tokenizer_2"))


def _add(*names: str, **parts: object) -> None:
    for name in names:
        pipelines.add(Pipeline(name, **parts), name)  # type: ignore[arg-type]


_add("DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "ScoreSdeVePipeline", "KarrasVePipeline")
_add("LDMPipeline", codec="vqvae")
_add("LDMSuperResolutionPipeline", codec="vqvae", joined="low resolution", scaled=False)
_add("LDMClassesPipeline", codec="vqvae", embedder="class_embedder", guidance=3.0)  # diffusers has none
_add("LDMTextToImagePipeline", codec="vqvae", texts=(("bert", "tokenizer"),), family=LATENT_DIFFUSION, guidance=5.0)
_add(
    "VQDiffusionPipeline",
    network="transformer",
    codec="vqvae",
    texts=_TEXT,
    family=STABLE_DIFFUSION,
    guidance=5.0,
    tokens=True,
)
_add("TokenPipeline", network="transformer", codec="vqvae", tokens=True)  # diffusers has none
_add("DiTPipeline", network="transformer", codec="vae", guidance=4.0, settings=("id2label",))
# diffusers has none: its PixArt pipelines read text through T5
_add("TextDiTPipeline", network="transformer", codec="vae", texts=_TEXT, family=STABLE_DIFFUSION, guidance=4.5)
_add(
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    codec="vae",
    texts=_TEXT,
    family=STABLE_DIFFUSION,
    guidance=7.5,
    settings=("requires_safety_checker",),
    other="StableDiffusionInpaintPipeline",
    repairs={"steps_offset": 1, "clip_sample": False},
)
_add(
    "StableDiffusionInpaintPipeline",
    codec="vae",
    texts=_TEXT,
    family=STABLE_DIFFUSION,
    joined="mask",
    guidance=7.5,
    settings=("requires_safety_checker",),
    other="StableDiffusionPipeline",
    repairs={"steps_offset": 1, "skip_prk_steps": True},
)
_add(
    "StableDiffusionDepth2ImgPipeline", codec="vae", texts=_TEXT, family=STABLE_DIFFUSION, joined="depth", guidance=7.5
)
_add(
    "StableDiffusionUpscalePipeline",
    codec="vae",
    texts=_TEXT,
    family=STABLE_DIFFUSION,
    joined="low resolution",
    upcasts=True,
    guidance=9.0,
    settings=("max_noise_level",),
)
_XL = ("force_zeros_for_empty_prompt", "requires_aesthetics_score", "add_watermarker")
_add(
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    codec="vae",
    texts=_TEXTS,
    family=SDXL,
    upcasts=True,
    guidance=5.0,
    settings=_XL,
    other="StableDiffusionXLInpaintPipeline",
)
_add(
    "StableDiffusionXLInpaintPipeline",
    codec="vae",
    texts=_TEXTS,
    family=SDXL,
    upcasts=True,
    joined="mask",
    guidance=7.5,
    settings=_XL,
    other="StableDiffusionXLPipeline",
)
