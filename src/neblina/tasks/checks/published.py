"""What the models that were published say, where two configurations load the same weights and make different pictures.

A value that no published model of a kind has may be a slip of the pen or a model of one's own; whether the network
answers as a trained one decides which.
"""

from collections.abc import Mapping
from typing import Any

from neblina.processes.schedules import Schedule

_STABLE = {"schedule": "scaled-linear", "steps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
_LATENT = {"schedule": "scaled-linear", "steps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}
_DDPM = {"schedule": "linear", "steps": 1000, "beta_start": 0.0001, "beta_end": 0.02}
_COSINE = {"schedule": "cosine", "steps": 1000, "max_beta": 0.999}
_UPSCALER = {**_STABLE, "beta_start": 0.0001, "beta_end": 0.02}
# of pipelines by the beginning of their names, the most particular first
SCHEDULES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "StableDiffusionUpscale": (_UPSCALER, _STABLE),
    "StableDiffusion": (_STABLE,),
    "LDMSuperResolution": ({**_LATENT, "beta_end": 0.0155},),
    "LDM": (_STABLE, _LATENT),
    "DiT": (_DDPM,),
    "DDPM": (_DDPM, _COSINE),
    "DDIM": (_DDPM, _COSINE),
    "PNDM": (_DDPM, _COSINE),
}
# of components by their class: fields that change no key, and the values that published ones have
FIELDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "UNet2DConditionModel": {
        "flip_sin_to_cos": (True,),
        "freq_shift": (0,),
        "act_fn": ("silu",),
        "norm_eps": (1e-5,),
        "center_input_sample": (False,),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "time_embedding_type": ("positional",),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
    },
    "UNet2DModel": {
        "act_fn": ("silu",),
        "norm_eps": (1e-5, 1e-6),
        "center_input_sample": (False,),
        "mid_block_scale_factor": (1,),
        "freq_shift": (0, 1),
    },
    "AutoencoderKL": {
        "act_fn": ("silu",),
        "scaling_factor": (0.18215, 0.13025, 0.08333, 0.3611, 1.5305, 1.0),
        "shift_factor": (None, 0.1159, 0.0609),
    },
    "CLIPTextModel": {"layer_norm_eps": (1e-5,), "hidden_act": ("quick_gelu", "gelu")},
    "CLIPTextModelWithProjection": {"layer_norm_eps": (1e-5,), "hidden_act": ("quick_gelu", "gelu")},
}
_TEXT_WIDTHS = {768: (8,), 1280: (8, None), 1024: (None, 8), 2048: (None,)}  # heads; None is one per 64 channels
_CLIP = {768: ("quick_gelu", 12), 1024: ("gelu", 16), 1280: ("gelu", 20)}  # activation and heads, by width


def unusual_schedule(pipeline: str, schedule: Schedule) -> str | None:
    """What to say of a schedule that no published model of a pipeline has, None of one that they have."""
    known = next((tables for name, tables in SCHEDULES.items() if pipeline.startswith(name)), None)
    said = {name: value for name, value in schedule.config().items() if name != "zero_snr"}
    if known is None or said in known:
        return None
    return f"its noise schedule is {_said(said)}; published models of this kind have {' or '.join(map(_said, known))}"


def unusual_fields(config: Mapping[str, Any]) -> list[str]:
    """What to say of the fields of a component's configuration that no published one has, a sentence each.

    Args:
        config: with its `_class_name`, or `architectures` of a text encoder.
    """
    architectures = config.get("architectures")
    name = str(architectures[0] if isinstance(architectures, list | tuple) and architectures else "")
    known = FIELDS.get(str(config.get("_class_name") or name), {})
    said = []
    for field, values in known.items():
        value = config.get(field, values[0])
        if value not in values:
            said.append(f"{field} is {value!r}; published ones have {' or '.join(map(repr, values))}")
    return said + _unusual_heads(config, name)


def _unusual_heads(config: Mapping[str, Any], name: str) -> list[str]:
    """Heads of attention, which the widths of the published models say."""
    if name in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        published = _CLIP.get(config.get("hidden_size", 0))
        read = (config.get("hidden_act", "quick_gelu"), config.get("num_attention_heads", 8))
        if published is None or read == published:
            return []
        return [f"hidden_act and num_attention_heads are {read}; published ones of this width have {published}"]
    text = config.get("cross_attention_dim")
    channels, heads = config.get("block_out_channels"), config.get("attention_head_dim", 8)
    if config.get("_class_name") != "UNet2DConditionModel" or not isinstance(text, int) or text not in _TEXT_WIDTHS:
        return []
    levels = [heads] * len(channels or ()) if isinstance(heads, int) else list(heads)
    fitting = [[width // 64 if each is None else each for width in channels or ()] for each in _TEXT_WIDTHS[text]]
    if levels in fitting:
        return []
    return [
        f"attention_head_dim (the number of heads) is {heads}; published ones have {' or '.join(map(str, fitting))}"
    ]


def _said(schedule: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{name} {value}" for name, value in schedule.items() if name not in ("schedule", "values"))
    return f"{schedule['schedule']} ({numbers})"
