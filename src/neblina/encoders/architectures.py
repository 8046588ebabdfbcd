"""The networks that read text for the models of the Stable Diffusion family.

CLIP's (Stable Diffusion 1; OpenCLIP's in 2), CLIP's with a projection of the whole text to one vector (SDXL's second),
and the BERT-like one of latent diffusion. The first two are transformers' own, imported when one is built, from the
modules that hold them: the package's own attribute of the same name imports more.

Radford et al. Learning Transferable Visual Models From Natural Language Supervision. ICML 2021.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neblina.core.errors import SettingError, choose
from neblina.encoders.ldm_bert import LDMBertConfig, LDMBertModel

_PREFIX = "text_model."


@dataclass(frozen=True)
class Reading:
    """What an encoder makes of tokens of shape (B, L).

    Attributes:
        states: the vectors before the first layer and after each one, shape (B, L, D).
        last: the last of them after the encoder's final normalisation, shape (B, L, D).
        pooled: one vector of the whole text, shape (B, P), None from an encoder without a projection.
    """

    states: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor | None


_CLIP_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "eos_token_id",
)
# of training, of the tokenizer, of writing text, or of transformers' own bookkeeping (its version 4 wrote all of them
# wherever one differed): they change nothing that is read here
_CLIP_IDLE = (
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
)


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        build: the network of a configuration.
        read: its reading of tokens.
        norm: its final normalisation.
        plain, written: a parameter's name in a file as it is known here, and the other way.
        sizes: the configuration's names of the width, the positions, the layers and the rows.
        pooled: the configuration's name of the width of the vector of the whole text, None for none.
    """

    build: Callable[[Mapping[str, Any]], nn.Module]
    read: Callable[[nn.Module, Tensor], Reading]
    norm: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    plain: Callable[[str], str]
    written: Callable[[str], str]
    sizes: tuple[str, str, str, str]
    pooled: str | None = None


def _clip_config(config: Mapping[str, Any]) -> Any:
    from transformers.activations import ACT2FN
    from transformers.models.clip.configuration_clip import CLIPTextConfig

    given = {key: value for key, value in config.items() if not key.startswith("_")}
    for key in given:
        choose("field of a CLIPTextModel config", key, (*_CLIP_FIELDS, *_CLIP_IDLE))
    if isinstance(given.get("eos_token_id"), list):
        raise SettingError(f"CLIPTextModel config: eos_token_id = {given['eos_token_id']} is a list; give one token")
    if "hidden_act" in given:
        choose("activation (hidden_act)", given["hidden_act"], ACT2FN)
    # None keeps transformers from warning that its defaults lie beyond a small vocabulary
    read = {"bos_token_id": None, "pad_token_id": None} | {key: given[key] for key in _CLIP_FIELDS if key in given}
    try:
        return CLIPTextConfig(**read)
    except Exception as error:  # what it raises has no base of its own
        raise SettingError(f"CLIPTextModel config: {' '.join(str(error).split())}") from error


def _clip(config: Mapping[str, Any]) -> nn.Module:
    from transformers.models.clip.modeling_clip import CLIPTextModel

    net: nn.Module = CLIPTextModel(_clip_config(config))
    return net


def _projected_clip(config: Mapping[str, Any]) -> nn.Module:
    from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

    net: nn.Module = CLIPTextModelWithProjection(_clip_config(config))
    return net


def _read_clip(net: nn.Module, tokens: Tensor) -> Reading:
    out = net(input_ids=tokens, output_hidden_states=True, return_dict=True)
    return Reading(tuple(out.hidden_states), out.last_hidden_state, getattr(out, "text_embeds", None))


def _clip_norm(net: nn.Module) -> Callable[[Tensor], Tensor]:
    inner: nn.Module = getattr(net, "text_model", net)  # where transformers has its text model as a part
    return inner.get_submodule("final_layer_norm")


def _read_ldm_bert(net: nn.Module, tokens: Tensor) -> Reading:
    states, last = net(tokens)
    return Reading(states, last, None)


def _ldm_bert_norm(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return net.get_submodule("model.layer_norm")


def _without_prefix(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _with_prefix(name: str) -> str:
    return name if name.startswith("text_projection.") else _PREFIX + name


def _same(name: str) -> str:
    return name


_CLIP_SIZES = ("hidden_size", "max_position_embeddings", "num_hidden_layers", "vocab_size")
ARCHITECTURES = {
    "CLIPTextModel": Architecture(_clip, _read_clip, _clip_norm, _without_prefix, _with_prefix, _CLIP_SIZES),
    "CLIPTextModelWithProjection": Architecture(
        _projected_clip, _read_clip, _clip_norm, _without_prefix, _with_prefix, _CLIP_SIZES, "projection_dim"
    ),
    "LDMBertModel": Architecture(
        lambda config: LDMBertModel(LDMBertConfig.from_dict(config)),
        _read_ldm_bert,
        _ldm_bert_norm,
        _same,
        _same,
        ("d_model", "max_position_embeddings", "encoder_layers", "vocab_size"),
    ),
}
