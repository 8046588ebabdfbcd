"""A checkpoint in one file as the components of a folder: a configuration and weights each, under diffusers' names.

The family is told from the keys, the configurations from the shapes and the family; nothing is looked up on a network.
What is neither in the file nor said by its family is listed, not guessed in silence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.single_file.autoencoder import read_autoencoder, read_tiny
from neblina.bundle.single_file.checkpoint import Checkpoint, read_checkpoint
from neblina.bundle.single_file.dit import read_dit
from neblina.bundle.single_file.families import FAMILIES, LOW_RESOLUTION_SCHEDULER, UNET, Family, is_tiny, recognise
from neblina.bundle.single_file.text import read_bert, read_clip, read_open_clip
from neblina.bundle.single_file.unet import read_unet
from neblina.core.errors import CheckpointError, SettingError, choose

_PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
_FIRST_STAGE = "first_stage_model."
OPEN_CLIP_PAD = "!"
_BASE_STEPS = 875_000  # after which Stable Diffusion 2's 512-pixel model, which predicts eps, was saved


@dataclass(frozen=True)
class Component:
    """One part of a model.

    Attributes:
        library: that has its class: "diffusers", "transformers" or "neblina".
        config: as its `config.json` says.
        state: its weights under that class's names, mapped from the file; empty for a scheduler.
        pad: the token that a text encoder's texts are padded with, None for its tokenizer's own.
    """

    library: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor] = field(default_factory=dict)
    pad: str | None = None


@dataclass(frozen=True)
class SingleFile:
    """Everything a file says.

    Attributes:
        family: a key of `FAMILIES`.
        pipeline: the class that diffusers would open it with.
        components: by their names in a folder.
        lacks: components that such a model needs and such a file has not.
        assumed: what was taken from the family because the file does not say, a sentence each.
        ignored: beginnings of names in the file that no component uses.
        settings: of the pipeline, as `model_index.json` would say.
    """

    family: str
    pipeline: str
    components: Mapping[str, Component]
    lacks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_single_file(place: Path, *, prediction: str | None = None, ema: bool = False) -> SingleFile:
    """Read an original checkpoint: `.safetensors`, `.ckpt`, `.pt`; nothing in it is executed.

    Args:
        prediction: what the model predicts ("eps", "v" or "x0"), where the file does not say or is wrong.
        ema: take the averaged weights of the network (`model_ema`), which training checkpoints hold beside the last.
    Raises:
        CheckpointError: no checkpoint of a family that is known, cut short, or with tensors that it should not have.
        SettingError: a prediction that there is not, or averaged weights of a file without them.
    """
    if prediction is not None:
        choose("prediction", prediction, _PREDICTIONS)
    checkpoint = read_checkpoint(place)
    return from_checkpoint(checkpoint, place, prediction=prediction, ema=ema)


def from_checkpoint(
    checkpoint: Checkpoint, place: Path, *, prediction: str | None = None, ema: bool = False
) -> SingleFile:
    """As `read_single_file`, of tensors that were read (or only described, on torch's meta device) already.

    Args:
        place: names the file in messages, and where the other half of a TAESD lies.
    """
    state = checkpoint.state
    name = recognise(state, str(place))
    if ema and not any(key.startswith("model_ema.") for key in state):
        raise SettingError(f"{place} holds no averaged weights (model_ema)")
    if prediction is not None and name in ("vae", "taesd"):
        raise SettingError(f"{place} is {FAMILIES[name].title}: it predicts nothing")
    try:
        if name == "taesd":
            return _tiny(state, place)
        if name == "vae":
            return _autoencoder(state)
        if name == "dit":
            return _transformer(checkpoint, prediction)
        return _model(checkpoint, name, prediction, ema)
    except CheckpointError as error:
        raise CheckpointError(f"{place} cannot be opened: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{place} cannot be opened: it lacks the tensor {error.args[0]}") from error


def _model(checkpoint: Checkpoint, name: str, prediction: str | None, ema: bool) -> SingleFile:
    state = checkpoint.state
    said, assumed = _prediction(checkpoint, name, prediction)
    name = ("sd2-eps" if said == "epsilon" else "sd2-v") if name == "sd2" else name
    family = FAMILIES[name]
    net = _averaged(state) if ema else part_of(state, UNET)
    config, weights = read_unet(net, family.heads, family.size)
    components = {"unet": Component("diffusers", config, weights)}
    lacks, settings = ["tokenizer"], dict[str, Any]()
    encoders = _text_encoders(state, name)
    components |= encoders
    if name.startswith("sdxl"):
        config |= _added(weights, encoders["text_encoder_2"], refines=name == "sdxl-refiner")
        settings["force_zeros_for_empty_prompt"] = name != "sdxl-refiner"
        if name == "sdxl-refiner":
            settings["requires_aesthetics_score"] = True
            lacks = ["tokenizer_2"]
        else:
            lacks.append("tokenizer_2")
    elif name == "ldm-classes":
        lacks = []
    elif name == "x4-upscaler":
        settings["max_noise_level"] = 350
        components["low_res_scheduler"] = Component("diffusers", LOW_RESOLUTION_SCHEDULER)
    elif name == "sd2-v":
        config["upcast_attention"] = True
    elif name == "sd2-depth":
        lacks.append("depth_estimator")
    lacks = [*lacks, *(part for part in _needed(name) if part not in components)]
    first_stage = _without(part_of(state, _FIRST_STAGE), ("loss.", "model_ema."))
    if first_stage:
        found = read_autoencoder(first_stage, family.scaling, _picture_size(family, first_stage))
        components["vqvae" if name.startswith("ldm") else "vae"] = Component("diffusers", *found)
    else:
        lacks.append("vae")
    scheduler, noted = _scheduler(state, family, said)
    components["scheduler"] = Component("diffusers", scheduler)
    return SingleFile(
        name,
        family.pipeline,
        components,
        tuple(lacks),
        (*assumed, *noted),
        _ignored(state, (UNET, _FIRST_STAGE, "cond_stage_model.", "conditioner.")),
        settings,
    )


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without the beginning."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's averaged weights, whose names are the plain ones without their dots."""
    averaged = {}
    for name in part_of(state, UNET):
        flat = "model_ema.diffusion_model" + name.replace(".", "")
        if flat not in state:
            raise CheckpointError(f"its averaged weights lack {flat}")
        averaged[name] = state[flat]
    return averaged


def _needed(name: str) -> tuple[str, ...]:
    if name == "ldm-classes":
        return ()
    if name == "ldm-text":
        return ("bert",)
    if name == "sdxl-refiner":
        return ("text_encoder_2",)
    return ("text_encoder", "text_encoder_2") if name.startswith("sdxl") else ("text_encoder",)


def _text_encoders(state: Mapping[str, Tensor], name: str) -> dict[str, Component]:
    found: dict[str, Component] = {}
    plain = part_of(state, "cond_stage_model.transformer.")
    opened = part_of(state, "cond_stage_model.model.")
    if name == "ldm-classes":
        rows = state["cond_stage_model.embedding.weight"]
        config = {"_class_name": "ClassEmbedder", "num_classes": rows.shape[0], "embed_dim": rows.shape[1]}
        return {"class_embedder": Component("neblina", config, {"embedding.weight": rows})}
    if name == "ldm-text":
        return {"bert": Component("diffusers", *read_bert(plain))}
    if name.startswith("sdxl"):
        first = part_of(state, "conditioner.embedders.0.transformer.")
        if first:
            found["text_encoder"] = Component("transformers", *read_clip(first))
        place = 0 if name == "sdxl-refiner" else 1
        second = part_of(state, f"conditioner.embedders.{place}.model.")
        if not second:
            raise CheckpointError("its second text encoder is missing")
        pooled = read_open_clip(second, penultimate=False, pooled=True)
        found["text_encoder_2"] = Component("transformers", *pooled, OPEN_CLIP_PAD)
    elif opened:
        read = read_open_clip(opened, penultimate=True, pooled=False)
        found["text_encoder"] = Component("transformers", *read, OPEN_CLIP_PAD)
    elif plain:
        found["text_encoder"] = Component("transformers", *read_clip(plain))
    return found


def _added(weights: Mapping[str, Tensor], encoder: Component, *, refines: bool) -> dict[str, Any]:
    """What the configuration of an SDXL network says of the sizes and the pooled text that it is told."""
    width = weights["add_embedding.linear_1.weight"].shape[1]
    sizes = width - encoder.config["projection_dim"]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": sizes // (5 if refines else 6),
        "projection_class_embeddings_input_dim": width,
    }


def _prediction(checkpoint: Checkpoint, name: str, asked: str | None) -> tuple[str | None, tuple[str, ...]]:
    """What the model predicts, in diffusers' words (None: as its family), and what had to be assumed."""
    if asked is not None:
        return _PREDICTIONS[asked], ()
    noted = checkpoint.notes.get("modelspec.prediction_type")
    if noted in ("v", "epsilon"):
        return ("epsilon" if noted == "epsilon" else "v_prediction"), ()
    if "v_pred" in checkpoint.state:
        return "v_prediction", ()
    if name != "sd2":
        return None, ()
    if checkpoint.notes.get("global_step") == _BASE_STEPS:
        return "epsilon", ()
    return "v_prediction", (
        "the file does not say what the model predicts: v is assumed; say eps if it is a base model",
    )


def _scheduler(
    state: Mapping[str, Tensor], family: Family, prediction: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The family's scheduler with what the file says of it: its prediction, its table of betas, a zero end."""
    config = dict(family.scheduler)
    if prediction is not None:
        config["prediction_type"] = prediction
    if "ztsnr" in state:
        if config["_class_name"] == "PNDMScheduler":  # which cannot say it
            config |= {"_class_name": "DDIMScheduler", "clip_sample": False}
            del config["skip_prk_steps"]
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    betas = state.get("betas")
    if betas is None or betas.is_meta:
        return config, ()
    power = 0.5 if config["beta_schedule"] == "scaled_linear" else 1.0
    ends = (config["beta_start"] ** power, config["beta_end"] ** power, config["num_train_timesteps"])
    table = torch.linspace(*ends, dtype=torch.float64) ** (1 / power)
    rounding = max(1e-3, torch.finfo(betas.dtype).eps)
    if table.shape == betas.shape and torch.allclose(table, betas.double(), rtol=rounding, atol=0):
        return config, ()
    config |= {"trained_betas": betas.tolist(), "num_train_timesteps": len(betas)}
    return config, (f"the file's noise schedule is not that of {family.title}: the file's is taken",)


def _transformer(checkpoint: Checkpoint, prediction: str | None) -> SingleFile:
    family = FAMILIES["dit"]
    scheduler, _ = _scheduler({}, family, _PREDICTIONS[prediction] if prediction else None)
    components = {
        "transformer": Component("diffusers", *read_dit(checkpoint.state)),
        "scheduler": Component("diffusers", scheduler),
    }
    return SingleFile("dit", family.pipeline, components, ("vae",))


def _autoencoder(state: Mapping[str, Tensor]) -> SingleFile:
    family = FAMILIES["vae"]
    prefix = _FIRST_STAGE if any(name.startswith(_FIRST_STAGE) for name in state) else ""
    used = {name: tensor for name, tensor in part_of(state, prefix).items() if _of_autoencoder(name)}
    config, weights = read_autoencoder(used, family.scaling, _picture_size(family, used))
    assumed = f"the file does not say at which scale its latents are diffused: {family.scaling} is assumed"
    vae = Component("diffusers", config, weights)
    ignored = _ignored(part_of(state, prefix), ("encoder.", "decoder.", "quant", "post_quant_conv."))
    return SingleFile("vae", config["_class_name"], {"vae": vae}, (), (assumed,), ignored)


def _of_autoencoder(name: str) -> bool:
    return name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize."))


def _tiny(state: Mapping[str, Tensor], place: Path) -> SingleFile:
    """TAESD, whose two halves are two files in its first release."""
    whole = {name.removeprefix("taesd_"): tensor for name, tensor in state.items()}
    for half, other in (("encoder", "decoder"), ("decoder", "encoder")):
        if all(name.split(".")[0].isdigit() for name in state) and half in place.name:
            sibling = place.with_name(place.name.replace(half, other))
            if not sibling.is_file():
                raise CheckpointError(f"it is one half of a TAESD, and the other, {sibling.name}, is not beside it")
            second = read_checkpoint(sibling).state
            if not is_tiny(second):
                raise CheckpointError(f"{sibling.name} beside it is not its other half")
            whole = {f"{half}.{name}": tensor for name, tensor in state.items()}
            whole |= {f"{other}.{name}": tensor for name, tensor in second.items()}
    return SingleFile("taesd", "AutoencoderTiny", {"vae": Component("diffusers", *read_tiny(whole))})


def _picture_size(family: Family, first_stage: Mapping[str, Tensor]) -> int:
    halvings = sum(name.endswith(".downsample.conv.weight") for name in first_stage)
    return int(family.size * 2**halvings)


def _without(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


def _ignored(state: Iterable[str], used: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({name.split(".")[0] for name in state if not name.startswith(used)}))
