"""A recipe: everything a training run is determined by, as data.

Recipes are YAML files; the package brings some, and any field can be overridden from the command line. Imports no
torch, so that a command line that only prints its help does not wait for it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from neblina.core import written
from neblina.core.errors import SettingError, choose

TEXTS = (".txt", ".md", ".text")
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A group of settings; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Apart(Section):
    """Combinations that are held out of training, though both of their parts are trained on."""

    fields: tuple[str, str]
    "of the pictures' metadata"
    count: Positive
    "combinations"


class Data(Section):
    """Which pictures."""

    source: str = "digits"
    "digits, or a path to a folder, a zip archive or IDX files"
    resolution: Positive | None = None
    "side that pictures are scaled to; as they are when left out"
    channels: Literal[1, 3] | None = None
    "1 grey, 3 colour; from the pictures when left out"
    holdout: Share = 0.0
    "share of the pictures kept out of training"
    labels: bool = True
    "condition the model on the pictures' classes where they have them"
    flip: bool = False
    "mirror half of the pictures left to right"
    apart: Apart | None = None
    "combinations of facts that are held out beside `holdout`, to measure whether a model composes"
    styles: tuple[str, ...] = ()
    "styles that the pictures are rendered in beside as they are, with their words in the captions"
    plain: Positive = 16
    "times that a picture is as it is for each time that it is in each of the styles"

    @property
    def holds_out(self) -> bool:
        """Whether there are pictures that are not trained on."""
        return self.holdout > 0 or self.apart is not None


class Process(Section):
    """How pictures are corrupted, and what the network predicts."""

    schedule: str = "cosine"
    "a noise schedule"
    settings: dict[str, bool | int | float] = {}
    "of the schedule, such as steps, beta_end or zero_snr"
    parameterisation: str = "v"
    "what the network predicts"
    clock: str | None = None
    "how the network is told the time; the parameterisation's own when left out"


class Objective(Section):
    """What training minimises, and which times it looks at."""

    loss: Literal["simple", "hybrid"] = "simple"
    "hybrid adds the variational bound and learns the reverse variance: the network has twice the output channels"
    weighting: str = "simple"
    "how much the error counts at each time"
    settings: dict[str, int | float] = {}
    "numbers of the weighting, such as gamma"
    vlb_weight: Annotated[float, Field(gt=0)] = 1e-3
    "weight of the variational bound in the hybrid loss"
    times: str = "uniform"
    "how times are drawn; for tokens, their steps: uniform or loss-second-moment"
    smallest_time: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    "the smallest time that score-norm draws; the true score is infinite at 0"


class Latents(Section):
    """What a denoiser diffuses in place of pixels: latents of a codec of Gaussian latents."""

    codec: str | None = None
    "folder of the codec"
    codec_recipe: str | None = None
    "recipe of a codec that is trained first, into the run's folder, where no codec is given"


class Text(Section):
    """A text encoder that is trained together with a denoiser of latents: CLIP's architecture, from random weights."""

    encoder: str | None = None
    "folder or name of a trained model whose text encoder is taken and left as it is, in place of one that is trained"
    layers: Annotated[int, Field(ge=0)] = 0
    "blocks; 0 for a model that reads no text"
    width: Positive = 192
    "of its vectors"
    heads: Positive = 6
    "attention heads"
    pace: Annotated[float, Field(gt=0)] = 0.2
    "its learning rate, as a share of optimizer.lr"
    tokens: Positive = 4096
    "most entries of the tokenizer, which is trained on the captions"
    window: Positive = 32
    "tokens that are read at once"
    prompts: tuple[str, ...] = ()
    "what sample sheets are made of, a column each"


class Draft(Section):
    """What a text encoder learns before the denoiser: to draft a picture's latents from its caption."""

    images: Annotated[int, Field(ge=0)] = 0
    "captions that are read, repeats counted; 0 for no draft"
    batch: Positive = 32
    "captions a step"
    lr: Annotated[float, Field(gt=0)] = 3e-3
    "learning rate"
    words: Annotated[float, Field(gt=0)] = 3.0
    "learning rate of the vectors of single tokens, as a share of draft.lr"
    patches: Positive = 4
    "a side of the latents, each said by a token of its own, the last ones of the window"


class Network(Section):
    """The U-Net, of levels of pixels too, or the levels of a classifier or a codec; or a transformer over patches."""

    kind: Literal["unet", "dit"] = "unet"
    "of a denoiser that reads text: a U-Net, or a transformer over patches of latents (DiT)"
    layers: Positive = 8
    "blocks of the transformer"
    width: Positive = 256
    "of its patches"
    patch: Positive = 2
    "latent cells a side of a patch"
    channels: tuple[Positive, ...] = (32, 64)
    "feature maps at each resolution, from the full one down"
    attention: Annotated[int, Field(ge=0)] = 16
    "largest side of a feature map that is attended over; 0 for nowhere"
    blocks: Positive = 2
    "residual blocks an encoder level; the decoder has one more"
    dropout: Share = 0.0
    "probability of dropping a feature"
    head_dim: Positive | None = 8
    "channels of an attention head; one head when left out"
    groups: Positive = 32
    "groups of the normalisations"
    fold: Positive = 1
    "pixels a side that are folded into channels before the network: 2 makes it about four times cheaper"
    scale_shift: bool = False
    "the time scales and shifts the normalisation instead of being added before it"


class Optimizer(Section):
    """AdamW and its schedule."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    "learning rate"
    betas: tuple[float, float] = (0.9, 0.99)
    "decay of its two moments"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    "decoupled weight decay"
    warmup: Annotated[int, Field(ge=0)] = 100
    "steps over which the learning rate rises"
    decay: Literal["none", "linear", "cosine"] = "none"
    "how the learning rate falls to 0 at the end"
    clip: Annotated[float, Field(gt=0)] = 1.0
    "most the gradient's norm may be"


class Training(Section):
    """How long, and what is kept."""

    images: Positive = 300_000
    "training examples, repeats counted"
    batch: Positive = 128
    "examples a step, over all processes together"
    seed: int = 0
    "of everything random"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    "of the network's arithmetic; weights and averages stay fp32"
    label_dropout: Share = 0.1
    "share of examples whose label is hidden, for guidance"
    ema: Share = 0.999
    "decay of the averaged weights a step"
    log_every: Positive = 20
    "steps between log lines"
    sample_every: Annotated[int, Field(ge=0)] = 1000
    "steps between sample grids; 0 for none"
    checkpoint_every: Positive = 1000
    "steps between checkpoints"
    keep: Annotated[int, Field(ge=1)] = 2
    "checkpoints kept"
    snapshots_every: Annotated[int, Field(ge=0)] = 0
    "steps between snapshots of averages that `neblina average` combines; 0 for none"


class Sampling(Section):
    """How the trained model samples when nothing else is asked for."""

    sampler: str = "dpmpp_2m"
    "a sampler"
    steps: Positive = 25
    "steps"
    grid: str | None = None
    "a grid of times; the sampler's default when left out"
    guidance: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    "weight of classifier-free guidance; 1 is none"
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    "limit that the belief about the clean picture is clipped to; pictures lie in [−1, 1]"


class Codec(Section):
    """What a picture autoencoder makes of pictures; its halves are the network's levels, a halving between two."""

    latents: Literal["codes", "gaussian"] = "codes"
    "entries of a learned codebook (VQ-VAE, VQGAN), or draws from a Gaussian (the KL autoencoder)"
    channels: Positive = 4
    "of a latent"
    entries: Positive = 512
    "codes in the codebook"
    codebook: Literal["ema", "gradient"] = "ema"
    "codes are averages of the latents they were nearest to, or follow the gradient"
    decay: Share = 0.99
    "of those averages, a step"
    commitment: Annotated[float, Field(gt=0)] = 0.25
    "weight of the loss that holds latents near their codes"
    revive: Annotated[int, Field(ge=0)] = 100
    "steps after which a code that no latent was nearest to is put where a latent is; 0 for never"
    kl: Annotated[float, Field(ge=0)] = 1e-6
    "weight of the Gaussian's divergence from the standard normal, in nats a value of the picture"


class Reconstruction(Section):
    """How a codec's pictures are compared with what they were."""

    loss: Literal["l1", "l2"] = "l1"
    "mean absolute or mean squared difference"
    perceptual: str | None = None
    "path of a TorchScript module from pictures in [−1, 1] to features, which are compared too"
    perceptual_weight: Annotated[float, Field(gt=0)] = 1.0
    "weight of the features' distance"


class Discriminator(Section):
    """A network that tells patches of a codec's pictures from real ones, which the codec learns to fool."""

    layers: Annotated[int, Field(ge=0)] = 0
    "halvings it makes: 1 sees patches of 16 pixels, 2 of 34, 3 of 70; 0 for no discriminator"
    channels: Positive = 64
    "feature maps of its first layer, twice as many after each halving, at most eight times"
    start: Annotated[int, Field(ge=0)] = 0
    "step from which it is trained and fooled"
    weight: Annotated[float, Field(gt=0)] = 0.8
    "of fooling it, where 1 is a gradient as large as the reconstruction's in the decoder's last layer"


class Tokens(Section):
    """What tokens are, how they are corrupted, and the network that denoises them."""

    of: Literal["codes", "levels", "letters"] = "codes"
    "codes of pictures by a trained codec, levels of grey of pixels, or the letters of a text file"
    codec: str | None = None
    "folder of the codec, for codes"
    codec_recipe: str | None = None
    "recipe of a codec that is trained first, into the run's folder, where no codec is given"
    levels: Annotated[int, Field(ge=2, le=256)] = 256
    "of grey, for levels; 2 is black and white"
    text: str | None = None
    "folder or name of a trained model whose text encoder reads the captions of pictures of codes and is left as it is"
    length: Positive = 128
    "letters of a passage, for letters"
    kernel: str = "mask-and-replace"
    "how tokens are corrupted"
    settings: dict[str, int | float | str] = {}
    "of the kernel, such as schedule or masked; with none, a model that reads text has VQ-Diffusion's own schedule"
    steps: Positive = 100
    "of the process that the network is told and the bound is over"
    auxiliary: Annotated[float, Field(ge=0)] = 0.01
    "weight of the belief's own cross-entropy"
    net: Literal["transformer", "unet"] = "transformer"
    "what denoises: a transformer over all tokens, or for levels the U-Net of the section network"
    says: Literal["logits", "logistic"] = "logits"
    "of a pixel, by the U-Net: a logit a level, or a logistic over levels in order"
    layers: Positive = 4
    "blocks of the transformer"
    width: Positive = 128
    "of its tokens"
    head: Positive = 32
    "channels of an attention head"
    dropout: Share = 0.0
    "probability of dropping a number that is added to the tokens"
    sampler: str = "ancestral"
    "how the trained model samples when nothing else is asked for"
    evaluations: Positive = 25
    "network evaluations of it"
    guidance: float = 1.0
    "its classifier-free guidance; 1 is none"


class Recipe(Section):
    """A training run."""

    name: str = "run"
    "what its folder is called"
    kind: Literal["denoiser", "classifier", "codec", "tokens"] = "denoiser"
    "what is trained: a model of pictures, a classifier of noisy ones, an autoencoder, or a model of tokens"
    data: Data = Data()
    process: Process = Process()
    objective: Objective = Objective()
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    sampling: Sampling = Sampling()
    codec: Codec = Codec()
    reconstruction: Reconstruction = Reconstruction()
    discriminator: Discriminator = Discriminator()
    tokens: Tokens = Tokens()
    latents: Latents = Latents()
    text: Text = Text()
    draft: Draft = Draft()

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.training.images // self.training.batch)


def packaged() -> tuple[str, ...]:
    """Names of the recipes in the package."""
    return tuple(written.packaged("recipes"))


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name, by the path of a YAML file, for a path with pictures (`pictures`) or of a text (`letters`).

    Args:
        name: of a packaged recipe, a YAML file, a folder or archive of pictures, or a text file.
        overrides: nested settings that replace the recipe's.
    Raises:
        SettingError: no such recipe, an unknown setting, or a value out of range.
    """
    shipped = written.packaged("recipes")
    where = f"recipe {name!r}"
    if name in shipped:
        text = shipped[name].read_text("utf-8")
    elif name.endswith((".yaml", ".yml")):
        if not Path(name).exists():
            raise SettingError(f"{name} does not exist")
        text = Path(name).read_text()
    elif Path(name).is_file() and name.endswith(TEXTS):
        return load_recipe("letters", _merged({"name": _stem(name), "data": {"source": name}}, overrides or {}))
    elif Path(name).exists():
        return load_recipe("pictures", _merged({"name": _stem(name), "data": {"source": name}}, overrides or {}))
    else:
        choose("recipe, a YAML file or a path to pictures or a text", name, shipped)
        raise AssertionError
    content = written.Written(where, text).values("a recipe is settings under names")
    return build_recipe(_merged(content, overrides or {}), where, text)


def build_recipe(content: Mapping[str, Any], where: str, text: str = "") -> Recipe:
    """A recipe from nested settings.

    Raises:
        SettingError: an unknown setting or a value out of range, with the line it stands in if `text` has it.
    """
    recipe: Recipe = written.Written(where, text).checked(Recipe, content)
    return recipe


def differences(one: Recipe, other: Recipe) -> Iterator[str]:
    """Settings that differ, as "training.batch: 64 there, 128 here"."""
    flat_one, flat_other = dict(_flat(one.model_dump())), dict(_flat(other.model_dump()))
    for key in sorted(flat_one.keys() | flat_other.keys()):
        if flat_one.get(key) != flat_other.get(key):
            yield f"{key}: {flat_one.get(key)!r} there, {flat_other.get(key)!r} here"


_HAVE_SETTINGS = ("schedule", "kernel")  # what the `settings` beside it are of


def _another_kind(network: Any, overrides: Mapping[str, Any]) -> bool:
    kind = Network.model_fields["kind"].default
    was = network.get("kind", kind) if isinstance(network, Mapping) else kind
    return "kind" in overrides and overrides["kind"] != was


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    if any(key in overrides and overrides[key] != base.get(key) for key in _HAVE_SETTINGS):
        result.pop("settings", None)
    text = overrides.get("text")
    if isinstance(text, Mapping) and text.get("encoder") is not None:  # the settings of one that is trained go with it
        result["text"] = {key: value for key, value in result.get("text", {}).items() if key == "prompts"}
        result.pop("draft", None)
    for key, value in overrides.items():
        if key == "network" and isinstance(value, Mapping) and _another_kind(result.get(key), value):
            result.pop(key, None)  # its settings are of the kind that is not taken
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _stem(path: str) -> str:
    return Path(path).resolve().name.split(".")[0] or "run"
