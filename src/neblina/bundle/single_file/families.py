"""The families of original checkpoints: how one is told from its keys, and what its shapes cannot say.

Shapes give widths, depths and channels. A family adds the number of heads, the scale of the latents, the schedule and
the picture's size, as published with its first checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neblina.core.errors import CheckpointError

UNET = "model.diffusion_model."
_STABLE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_PNDM = {
    "_class_name": "PNDMScheduler",
    **_STABLE,
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
_DDIM = {
    "_class_name": "DDIMScheduler",
    **_STABLE,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
_V = {**_DDIM, "prediction_type": "v_prediction"}
_EULER = {
    "_class_name": "EulerDiscreteScheduler",
    **_STABLE,
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": False,
    "prediction_type": "epsilon",
}


@dataclass(frozen=True)
class Family:
    """What the shapes of a checkpoint do not say.

    Attributes:
        title: in a message.
        pipeline: of diffusers, by class name.
        scheduler: its configuration.
        size: of the pictures in latent cells.
        scaling: of the first stage's latents.
        heads: of every attention, None for one per 64 channels.
    """

    title: str
    pipeline: str
    scheduler: Mapping[str, Any]
    size: int = 64
    scaling: float = 0.18215
    heads: int | None = None


FAMILIES = {
    "sd1": Family("Stable Diffusion 1", "StableDiffusionPipeline", _PNDM, heads=8),
    "sd1-inpainting": Family("Stable Diffusion 1 inpainting", "StableDiffusionInpaintPipeline", _PNDM, heads=8),
    "sd2-v": Family("Stable Diffusion 2 (v)", "StableDiffusionPipeline", _V, size=96),
    "sd2-eps": Family("Stable Diffusion 2 (eps)", "StableDiffusionPipeline", _PNDM),
    "sd2-inpainting": Family("Stable Diffusion 2 inpainting", "StableDiffusionInpaintPipeline", _PNDM),
    "sd2-depth": Family("Stable Diffusion 2 depth", "StableDiffusionDepth2ImgPipeline", _PNDM),
    "x4-upscaler": Family(
        "Stable Diffusion's ×4 upscaler",
        "StableDiffusionUpscalePipeline",
        {**_V, "beta_start": 0.0001, "beta_end": 0.02},
        size=128,
        scaling=0.08333,
        heads=8,
    ),
    "sdxl": Family("SDXL", "StableDiffusionXLPipeline", _EULER, size=128, scaling=0.13025),
    "sdxl-inpainting": Family("SDXL inpainting", "StableDiffusionXLInpaintPipeline", _EULER, size=128, scaling=0.13025),
    "sdxl-refiner": Family("SDXL's refiner", "StableDiffusionXLImg2ImgPipeline", _EULER, size=128, scaling=0.13025),
    "ldm-text": Family("latent diffusion with text", "LDMTextToImagePipeline", _DDIM, size=32, heads=8),
    "ldm-classes": Family(
        "latent diffusion with classes",
        "LDMClassesPipeline",
        {**_DDIM, "beta_start": 0.0015, "beta_end": 0.0195},
        scaling=1.0,
        heads=1,
    ),
    "dit": Family(
        "DiT",
        "DiTPipeline",
        {**_DDIM, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "steps_offset": 0},
    ),
    "vae": Family("an autoencoder alone", "AutoencoderKL", {}),
    "taesd": Family("TAESD", "AutoencoderTiny", {}),
}
LOW_RESOLUTION_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "variance_type": "fixed_small",
}

_OTHERS = (
    ("control_model.", "is a ControlNet, which is not read here"),
    ("double_blocks.", "is a Flux model, which is not read here"),
    ("joint_blocks.", "is a Stable Diffusion 3 model, which is not read here"),
    ("motion_modules.", "is an AnimateDiff module, which is not read here"),
    ("lora_unet_", "is a LoRA, not a model; give it beside a model, with --lora"),
    ("lora_te", "is a LoRA, not a model; give it beside a model, with --lora"),
    (".lora_", "is a LoRA, not a model; give it beside a model, with --lora"),
    ("string_to_param", "is a textual inversion, which is not read here"),
    ("emb_params", "is a textual inversion, which is not read here"),
    ("down_blocks.", "has diffusers' names: it belongs in a model's folder, beside its config.json"),
    ("transformer_blocks.", "has diffusers' names: it belongs in a model's folder, beside its config.json"),
    ("encoder.layers.", "has the names of a folder's component: it belongs there, beside its config.json"),
)


def recognise(state: Mapping[str, Tensor], where: str) -> str:
    """The family, by its key in `FAMILIES`, of tensors under an original's names.

    A Stable Diffusion 2 that makes pictures from text alone is "sd2": the file does not say whether it predicts v or
    eps.

    Raises:
        CheckpointError: none; what else it seems to be is said.
    """
    if UNET + "input_blocks.0.0.weight" in state:
        return _with_unet(state, where)
    if "x_embedder.proj.weight" in state and "y_embedder.embedding_table.weight" in state:
        return "dit"
    if any(prefix + "decoder.conv_in.weight" in state for prefix in ("", "first_stage_model.")):
        if any(".down_blocks." in name for name in state):
            raise CheckpointError(
                f"{where} has diffusers' names: it belongs in a model's folder, beside its config.json"
            )
        return "vae"
    for part, said in _OTHERS:
        if any(part in name for name in state):
            raise CheckpointError(f"{where} {said}")
    if is_tiny(state):
        return "taesd"
    raise CheckpointError(
        f"{where} is no checkpoint that is known here: it holds {len(state)} tensors, the first of them {min(state)}"
    )


def is_tiny(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are TAESD's or a half of it: all named by numbers, in blocks of `conv.0`, `conv.2`, `conv.4`."""
    return all(_number(name).isdigit() for name in state) and any(name.endswith(".conv.4.weight") for name in state)


def _number(name: str) -> str:
    parts = name.split(".")
    return parts[1] if parts[0] in ("encoder", "decoder", "taesd_encoder", "taesd_decoder") else parts[0]


def _with_unet(state: Mapping[str, Tensor], where: str) -> str:
    if any(name.startswith("control_model.") for name in state):
        raise CheckpointError(f"{where} is a ControlNet, which is not read here")
    if any(name.startswith(("edm_mean", "edm_vpred.")) for name in state):
        raise CheckpointError(f"{where} is an EDM model, whose process a file does not say; open its folder instead")
    channels = state[UNET + "input_blocks.0.0.weight"].shape[1]
    projection = state.get(UNET + "middle_block.1.proj_in.weight")
    if UNET + "label_emb.0.0.weight" in state:
        if not any(name.startswith("conditioner.") for name in state):
            raise CheckpointError(
                f"{where} is an unCLIP model, or SDXL without its text encoders: neither is read here"
            )
        refines = "conditioner.embedders.0.model.positional_embedding" in state
        named = {4: "sdxl-refiner"} if refines else {4: "sdxl", 9: "sdxl-inpainting"}
    elif UNET + "label_emb.weight" in state:
        named = {7: "x4-upscaler"}
    elif "cond_stage_model.embedding.weight" in state:
        named = {channels: "ldm-classes"}
    elif "cond_stage_model.transformer.token_emb.weight" in state:
        named = {channels: "ldm-text"}
    elif projection is None:
        raise CheckpointError(f"{where} has a U-Net that reads no condition; such a model is not read here")
    elif "cond_stage_model.model.positional_embedding" in state or projection.ndim == 2:
        named = {4: "sd2", 9: "sd2-inpainting", 5: "sd2-depth"}
    else:
        named = {4: "sd1", 9: "sd1-inpainting"}
    if channels not in named:
        known = " or ".join(map(str, named))
        raise CheckpointError(f"{where} has a U-Net of {channels} input channels, where its family has {known}")
    return named[channels]
