"""The yaml beside a `.pth` of VQ-Diffusion's release: what the transformer, its tokens and its codec are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neblina.core.errors import CheckpointError, SettingError
from neblina.core.written import Written, dotted

_ATTENTIONS = {
    "Text2ImageTransformer": "selfcross",
    "Condition2ImageTransformer": "selfcondition",
    "UnCondition2ImageTransformer": "self",
}
_CODECS = ("TamingVQVAE", "TamingFFHQVQVAE", "PatchVQVAE")
_ACTIVATIONS = {"GELU": "gelu", "GELU2": "geglu-approximate"}
_TUPLE = "!!python/tuple"


@dataclass(frozen=True)
class ReleaseSettings:
    """What the yaml says of a model.

    Attributes:
        tokens: how many values a token has, without the mask.
        grid: height and width in tokens.
        width, heads, layers, activation: of the transformer.
        steps: of the diffusion.
        text_width: width of the text's vectors, None for a model that reads none.
        classes: how many labels there are, without the null; None for a model that is told none.
        convolutional: whether the feed-forward layer sees the neighbours.
        learned_null: whether a text that says nothing is used where the file has one.
        mapping: name of the file that says which token a code is, None where they are the same.
    """

    tokens: int
    grid: tuple[int, int]
    width: int
    heads: int
    layers: int
    activation: str
    steps: int
    text_width: int | None
    classes: int | None
    convolutional: bool
    learned_null: bool
    mapping: str | None


def find_yaml(place: Path) -> Path:
    """The yaml of a `.pth`: of its name, else `config.yaml`, else the only one beside it.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    for named in (place.with_suffix(".yaml"), place.with_name("config.yaml")):
        if named.is_file():
            return named
    found = sorted(place.parent.glob("*.yaml"))
    if len(found) != 1:
        said = f"there are {', '.join(one.name for one in found)}" if found else "there is no yaml"
        raise CheckpointError(
            f"{place} is opened with the yaml of its model, and beside it {said}: put it there as "
            f"{place.with_suffix('.yaml').name}"
        )
    return found[0]


def read_release_settings(place: Path) -> ReleaseSettings:
    """What the yaml beside a `.pth` says.

    Raises:
        CheckpointError: there is no yaml, or several, or it cannot be read.
        SettingError: something is missing in it, or of a kind that is not opened here.
    """
    source = find_yaml(place)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{source} cannot be read: {error}") from error
    written = Written(str(source), text.replace(_TUPLE, ""))  # a tuple is a list to us, and a safe reader knows no tag
    whole = _Part(written, written.values("a model is settings under names"))
    model = whole.inner("model").inner("params")
    diffusion = model.component("diffusion_config", ("DiffusionTransformer",))[1]
    diffusion.only("alpha_init_type", "alpha1", unsaid="cos")
    return _settings(model, diffusion)


def _settings(model: "_Part", diffusion: "_Part") -> ReleaseSettings:
    kind, net = diffusion.component("transformer_config", _ATTENTIONS)
    _, embedding = diffusion.component("content_emb_config", ("DalleMaskImageEmbedding",))
    _, codec = model.component("content_codec_config", _CODECS)
    reads_text = kind == "Text2ImageTransformer"
    # of the kinds of normalisation that a time or a label modulates, layers of one are opened
    for name in ("timestep_type", *(("class_type",) if kind == "Condition2ImageTransformer" else ())):
        net.only(name, "adalayernorm", unsaid="adalayernorm")
    net.only("attn_type", _ATTENTIONS[kind], unsaid=_ATTENTIONS[kind])
    net.only("mlp_hidden_times", 4, unsaid=4)
    embedding.only("pos_emb_type", "embedding", unsaid="embedding")
    feed = net.one_of(
        "mlp_type", ("fc",) if reads_text else ("fc", "conv_mlp"), unsaid="fc" if reads_text else "conv_mlp"
    )
    width, heads = net.count("n_embd"), net.count("n_head")
    if width % heads:
        raise net.error("n_head", f"= {heads} does not divide n_embd = {width}")
    grid = net.grid("content_spatial_size")
    net.only("content_seq_len", grid[0] * grid[1])
    if codec.grid("token_shape") != grid:
        raise codec.error("token_shape", f"is {codec.grid('token_shape')}, and the transformer's tokens are {grid}")
    tokens, mapped = embedding.count("num_embed"), codec.content.get("quantize_number", 0)
    if mapped not in (0, tokens):
        raise codec.error("quantize_number", f"= {mapped}, and the transformer makes tokens of {tokens} classes")
    return ReleaseSettings(
        tokens=tokens,
        grid=grid,
        width=width,
        heads=heads,
        layers=net.count("n_layer"),
        activation=_ACTIVATIONS[net.one_of("block_activate", _ACTIVATIONS)],
        steps=diffusion.count("diffusion_step", unsaid=100),
        text_width=_text_width(net, diffusion) if reads_text else None,
        classes=_classes(diffusion) if kind == "Condition2ImageTransformer" else None,
        convolutional=feed == "conv_mlp",
        learned_null=reads_text
        and diffusion.content.get("learnable_cf", model.content.get("learnable_cf")) is not False,
        mapping=Path(str(codec.value("mapping_path"))).name if mapped else None,
    )


def _text_width(net: "_Part", diffusion: "_Part") -> int:
    text = diffusion.component("condition_emb_config", ("CLIPTextEmbedding",))[1]
    text.only("normalize", True, unsaid=True)
    text.only("pick_last_embedding", False, unsaid=True)
    text.only("additional_last_embedding", False, unsaid=False)
    width = net.count("condition_dim", unsaid=512)
    text.only("embed_dim", width, unsaid=1024)
    return width


def _classes(diffusion: "_Part") -> int:
    labels = diffusion.component("condition_emb_config", ("ClassEmbedding",))[1]
    labels.only("identity", True, unsaid=False)  # with vectors of its own the blocks would read no labels
    return labels.count("num_embed", unsaid=1000)


@dataclass(frozen=True)
class _Part:
    """Settings under names, and where in the yaml they stand."""

    written: Written
    content: Mapping[str, Any]
    place: tuple[str, ...] = ()

    def error(self, name: str, said: str) -> SettingError:
        """A sentence about one of them."""
        place = (*self.place, name)
        return SettingError(f"{self.written.start(place)}{dotted(place)} {said}")

    def value(self, name: str, unsaid: Any = None) -> Any:
        """What is said, else what the release takes where nothing is."""
        found = self.content.get(name, unsaid)
        if found is None:
            raise self.error(name, "is missing")
        return found

    def inner(self, name: str) -> "_Part":
        """The settings under a name."""
        found = self.value(name)
        if not isinstance(found, Mapping):
            raise self.error(name, f"= {found!r}: settings under names belong here")
        return _Part(self.written, found, (*self.place, name))

    def component(self, name: str, kinds: Iterable[str]) -> tuple[str, "_Part"]:
        """The class of a component, without its modules, and what it is made with."""
        own = self.inner(name)
        kind = str(own.value("target")).rpartition(".")[2]
        if kind not in kinds:
            raise own.error("target", f"= {kind} is not opened; of the release, {' and '.join(kinds)} can be")
        return kind, own.inner("params")

    def one_of(self, name: str, options: Iterable[str], unsaid: Any = None) -> str:
        """A name in a table."""
        found = self.value(name, unsaid)
        if found not in options:
            raise self.error(name, f"= {found!r} is not opened; {' and '.join(options)} can be")
        return str(found)

    def only(self, name: str, wanted: Any, unsaid: Any = None) -> None:
        """Refuse another value than the one that is opened."""
        found = self.value(name, unsaid)
        if found != wanted:
            raise self.error(name, f"= {found!r} is not opened; only {wanted!r} is")

    def count(self, name: str, unsaid: Any = None) -> int:
        """A whole number that is positive."""
        found = self.value(name, unsaid)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise self.error(name, f"= {found!r} is not a positive whole number")
        return found

    def grid(self, name: str) -> tuple[int, int]:
        """Height and width of a square."""
        found = self.value(name)
        if not isinstance(found, list) or len(found) != 2 or found[0] != found[1] or not isinstance(found[0], int):
            raise self.error(name, f"= {found!r} is not the height and the width of a square of tokens")
        return found[0], found[1]
