"""A model of tokens in memory and as a folder: VQ-Diffusion's own layout, and ours for what that has no words for.

A folder of diffusers' VQDiffusionPipeline holds `vqvae/`, `transformer/`, `text_encoder/`, `tokenizer/`, `scheduler/`
and the learned text that says nothing. What it cannot say (another kernel, classes, the letters of a text, how to
sample) is in `neblina.json`; a folder without a text encoder is a TokenPipeline, which diffusers has not.

Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, section 4.1 (the schedule).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neblina.bundle.codec import check_codec
from neblina.bundle.components import Opening, read_component, write_component
from neblina.bundle.files import CARD, FORMAT, read_json, refuse_strangers, write_card, write_json
from neblina.bundle.index import INDEX, SCHEDULER, check_classes, kept_components, mixing, read_index
from neblina.bundle.pipelines import Pipeline, pipelines
from neblina.bundle.texts import Texts, read_texts
from neblina.codecs.levels import Levels
from neblina.codecs.vq import VQCodec
from neblina.core.atomic import new_folder, recover
from neblina.core.conditions import Condition
from neblina.core.errors import CheckpointError, SettingError, choose
from neblina.core.shards import Filing
from neblina.denoisers.categorical import CategoricalDenoiser
from neblina.nets.learned_null import LearnedNull
from neblina.nets.network import TokenNetwork
from neblina.nets.vq_autoencoder import VQAutoencoder
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.kernels import Kernel, make_kernel, mask_and_replace

NULL = "learned_classifier_free_sampling_embeddings"
LAYOUT = "0.42.0"  # of diffusers' folders
_SCHEDULE = {
    "num_train_timesteps": 100,
    "alpha_cum_start": 0.99999,
    "alpha_cum_end": 0.000009,
    "gamma_cum_start": 0.000009,
    "gamma_cum_end": 0.99999,
}


@dataclass(frozen=True)
class TokenSampling:
    """How a model of tokens samples when nothing else is asked for.

    Attributes:
        sampler: a registered sampler of tokens.
        steps: evaluations.
        guidance: weight of classifier-free guidance.
        truncation: share of the probability that is drawn from.
    """

    sampler: str = "ancestral"
    steps: int = 100
    guidance: float = 1.0
    truncation: float = 1.0


@dataclass(frozen=True)
class TokenBundle:
    """Everything a model's files say.

    Attributes:
        net: the network, in evaluation mode.
        kernel: of the process it was trained on.
        clock_steps: as of `CategoricalDenoiser`.
        codec: between pictures and tokens; None for tokens that are letters.
        alphabet: the letters that tokens stand for; empty for pictures.
        label_names, null_label, text: as of `Bundle`.
        null: what guidance goes away from in place of the empty prompt; None for a model that learned none.
        sampling: how it samples when nothing else is asked for.
        codec_digest: of the codec whose codes it was trained on (`bundle.codec`); None where that is not known.
        card: what else is known.
        pipeline: what its folder is made of.
    """

    net: TokenNetwork
    kernel: Kernel
    clock_steps: int | None = None
    codec: VQCodec | Levels | None = None
    alphabet: str = ""
    label_names: tuple[str, ...] = ()
    null_label: int | None = None
    text: Texts | None = None
    null: LearnedNull | None = None
    sampling: TokenSampling = field(default_factory=TokenSampling)
    codec_digest: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline = field(default_factory=lambda: pipelines["TokenPipeline"])

    def __post_init__(self) -> None:
        """Refuse parts that were made apart.

        Raises:
            CheckpointError: naming both sizes.
        """
        known, classes = self.net.config.num_categories, self.kernel.classes
        if known != classes:
            raise CheckpointError(f"the network knows {known} classes of tokens, and its process corrupts {classes}")
        entries = self.codec.net.config.num_vq_embeddings if isinstance(self.codec, VQCodec) else None
        if isinstance(self.codec, Levels):
            entries = self.codec.count
        if self.codec is None and self.alphabet:
            entries = len(self.alphabet)
        if entries is not None and entries != known:
            what = "letters" if self.alphabet else "codes"
            raise CheckpointError(f"the network makes tokens of {known} classes, and there are {entries} {what}")

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by the names of their components."""
        named: dict[str, nn.Module] = {self.pipeline.network: self.net}
        if isinstance(self.codec, VQCodec):
            named[str(self.pipeline.codec)] = self.codec.net
        if self.null is not None:
            named[NULL] = self.null
        return {**named, **({} if self.text is None else self.text.modules)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample: rows and columns of tokens, or how many in a line."""
        return self.net.config.grid or (self.net.config.places,)

    def denoiser(self) -> CategoricalDenoiser:
        """The network as a denoiser."""
        classes = self.net.config.num_labels - (self.null_label is not None)
        process = DiscreteProcess(self.kernel)
        wants = self.net.config.wants
        return CategoricalDenoiser(self.net, process, self.clock_steps, max(classes, 0), self.null_label, wants)

    def encode(self, prompts: list[str], negative: str | list[str] | None, *, long: str = "refuse") -> Condition:
        """The condition of each prompt: CLIP's vectors, each of length 1, and guidance's other branch.

        Raises:
            SettingError: a model that reads none, or a prompt that is too long.
        """
        if self.text is None:
            raise SettingError("this model reads no text: leave the prompt out")
        encoded = self.text.encode(prompts, negative, size=(0, 0), long=long)
        assert encoded.text is not None
        assert encoded.unsaid is not None
        unsaid = None if encoded.unsaid.text is None else unit(encoded.unsaid.text)
        if negative is None and self.null is not None and self.null.config.learnable:
            unsaid = self.null.embeddings.detach().expand(len(prompts), -1, -1)
        return replace(encoded, text=unit(encoded.text), unsaid=replace(encoded.unsaid, text=unsaid))


def save_token_bundle(bundle: TokenBundle, folder: Path, filing: Filing | None = None) -> None:
    """Write the folder, all of it or nothing.

    Raises:
        CheckpointError: something is there that this does not write.
        StorageError: the disk is full or refuses; what was there before is untouched.
    """
    own = {INDEX, CARD, "scheduler", *bundle.modules, *bundle.pipeline.text_parts, NULL}
    refuse_strangers(folder, own, "a model")
    schedule = _scheduler_of(bundle)
    index: dict[str, Any] = {"_class_name": bundle.pipeline.name, "_diffusers_version": LAYOUT}
    with new_folder(folder) as aside:
        texts = {} if bundle.text is None else bundle.text.modules
        for part, module in bundle.modules.items():
            if part not in texts:
                write_component(module, aside / part, filing)
                index[part] = ["diffusers", read_json(aside / part / "config.json")["_class_name"]]
        if bundle.text is not None:
            index |= {part: list(kind) for part, kind in bundle.text.save(aside, filing).items()}
        if schedule is not None:
            index["scheduler"] = ["diffusers", "VQDiffusionScheduler"]
            write_json(aside / "scheduler" / SCHEDULER, {"_class_name": "VQDiffusionScheduler", **schedule})
        write_json(aside / INDEX, index)
        write_card(
            aside,
            {
                "kernel": bundle.kernel.config(),
                "clock_steps": bundle.clock_steps,
                "labels": list(bundle.label_names),
                "null_label": bundle.null_label,
                "alphabet": bundle.alphabet,
                "levels": bundle.codec.count if isinstance(bundle.codec, Levels) else None,
                "sampling": asdict(bundle.sampling),
                **({} if bundle.codec_digest is None else {_CODEC: bundle.codec_digest}),
                **bundle.card,
            },
        )


_CODEC = "codec_sha256"  # not in the cards of earlier versions
_SAID = ("format", "version", "kernel", "clock_steps", "labels", "null_label", "alphabet", "levels", "sampling")


def load_token_bundle(folder: Path, opening: Opening | None = None) -> TokenBundle:
    """Read a folder that `save_token_bundle` wrote, or one of diffusers' VQDiffusionPipeline.

    Raises:
        CheckpointError: a file is missing, cut short, or does not fit the others; another codec than it was trained on.
        SettingError: a configuration with a field or value that this package does not have.
    """
    opening = opening or Opening()
    recover(folder)
    index, pipeline = read_index(folder)
    opening = mixing(folder, index, opening)
    names = [pipeline.network, *([str(pipeline.codec)] if str(pipeline.codec) in index else [])]
    check_classes(folder, index, pipeline, names)
    net = read_component(folder / pipeline.network, opening)
    if not isinstance(net, TokenNetwork):
        raise CheckpointError(f"{folder / pipeline.network} holds a {type(net).__name__}, which is of no tokens")
    codec: VQCodec | Levels | None = None
    if str(pipeline.codec) in index:
        module = read_component(folder / str(pipeline.codec), opening)
        if not isinstance(module, VQAutoencoder):
            raise CheckpointError(f"{folder / str(pipeline.codec)} holds a {type(module).__name__}, which has no codes")
        codec = VQCodec(module)
    texts = read_texts(folder, pipeline, index, opening)
    null = read_component(folder / NULL, opening) if (folder / NULL).is_dir() else None
    if null is not None and not isinstance(null, LearnedNull):
        raise CheckpointError(f"{folder / NULL} holds a {type(null).__name__}, which is no text")
    strange = set(kept_components(folder, index, pipeline)) - {NULL}
    if strange:
        raise CheckpointError(f"{folder / INDEX}: {min(strange)} is no component of a {pipeline.name}")
    parts: dict[str, Any] = {"net": net, "text": texts, "null": null, "pipeline": pipeline}
    place = folder / CARD
    if not place.exists():
        given = read_json(folder / "scheduler" / SCHEDULER)
        kernel, steps = scheduled_kernel(given, str(folder / "scheduler" / SCHEDULER))
        sampling = TokenSampling(steps=steps, guidance=pipeline.guidance)
        return TokenBundle(kernel=kernel, clock_steps=steps, codec=codec, sampling=sampling, **parts)
    card = read_json(place)
    for key in _SAID:
        if key not in card:
            raise CheckpointError(f"{place} lacks {key}")
    if card["format"] != FORMAT:
        raise CheckpointError(f"{place} is of format {card['format']}; this version reads {FORMAT}. Upgrade neblina.")
    for key in card["sampling"]:
        choose(f"sampling setting in {place}", key, TokenSampling.__dataclass_fields__)
    if isinstance(codec, VQCodec) and opening.variant is None and opening.dtype == torch.float32:  # others are rounded
        check_codec(codec.net, card.get(_CODEC), folder / str(pipeline.codec))
    return TokenBundle(
        kernel=make_kernel(**card["kernel"]),
        clock_steps=card["clock_steps"],
        codec=codec if card["levels"] is None else Levels(card["levels"]),
        alphabet=card["alphabet"],
        label_names=tuple(card["labels"]),
        null_label=card["null_label"],
        sampling=TokenSampling(**card["sampling"]),
        codec_digest=card.get(_CODEC),
        card={key: value for key, value in card.items() if key not in (*_SAID, _CODEC)},
        **parts,
    )


def scheduled_kernel(given: Mapping[str, Any], where: str) -> tuple[Kernel, int]:
    """The kernel of a VQDiffusionScheduler's configuration, and its number of steps.

    Raises:
        SettingError: an unknown field, or a table that is no kernel.
    """
    own = {key: value for key, value in given.items() if not key.startswith("_")}
    for key in own:
        choose(f"field of a VQDiffusionScheduler in {where}", key, (*_SCHEDULE, "num_vec_classes"))
    if "num_vec_classes" not in own:
        raise SettingError(f"{where} does not say num_vec_classes, how many classes a token has, the mask included")
    full = {**_SCHEDULE, **own}
    steps = int(full["num_train_timesteps"])
    alphas = np.linspace(full["alpha_cum_start"], full["alpha_cum_end"], steps)
    gammas = np.linspace(full["gamma_cum_start"], full["gamma_cum_end"], steps)
    kernel = mask_and_replace(
        int(full["num_vec_classes"]) - 1, alphas=tuple(alphas.tolist()), unmasked=tuple((1 - gammas).tolist())
    )
    return kernel, steps


def _scheduler_of(bundle: TokenBundle) -> dict[str, Any] | None:
    """The configuration of a VQDiffusionScheduler, where there is one that corrupts alike."""
    said = bundle.kernel.config()
    alphas, unmasked = said.get("alphas") or [], said.get("unmasked") or []
    if bundle.pipeline.name != "VQDiffusionPipeline" or not alphas or len(alphas) != bundle.clock_steps:
        return None
    given = {
        "num_vec_classes": bundle.kernel.classes + 1,
        "num_train_timesteps": len(alphas),
        "alpha_cum_start": alphas[0],
        "alpha_cum_end": alphas[-1],
        "gamma_cum_start": round(1 - unmasked[0], 12),
        "gamma_cum_end": round(1 - unmasked[-1], 12),
    }
    same = scheduled_kernel(given, "its own")[0].config()
    alike = np.allclose(same["alphas"], alphas, atol=1e-9) and np.allclose(same["unmasked"], unmasked, atol=1e-9)
    return given if alike else None


def unit(text: Tensor) -> Tensor:
    """Vectors of a text as VQ-Diffusion reads them: each of length 1."""
    lengths: Tensor = torch.linalg.vector_norm(text, dim=-1, keepdim=True)
    return text / lengths
