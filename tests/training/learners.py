"""Small runs of every kind of learner, with all in them that a checkpoint must hold, for tests that they share."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neblina.bundle.texts import Texts
from neblina.codecs.kl import KLCodec
from neblina.codecs.vq import VQCodec
from neblina.data.pictures import InMemory
from neblina.data.tokens import Stacked
from neblina.encoders.families import STABLE_DIFFUSION
from neblina.encoders.learning import learn_tokenizer, new_text_encoder
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig
from neblina.training.build_tokens import tokens_of
from neblina.training.checkpoint import list_checkpoints
from neblina.training.codec import train_codec
from neblina.training.examples import divided
from neblina.training.frozen import Reader
from neblina.training.recipe import Recipe, build_recipe
from neblina.training.run import train
from neblina.training.text import train_text
from neblina.training.text_tokens import train_text_tokens
from neblina.training.tokens import train_tokens

_TRAINING = {"images": 60 * 8, "batch": 8, "log_every": 7, "sample_every": 0, "checkpoint_every": 4}


@dataclass(frozen=True)
class Kind:
    """A kind of learner.

    Attributes:
        content: of its recipe.
        run: trains it: (recipe, folder, resume=, on_report=) to the model's folder.
    """

    content: Mapping[str, Any]
    run: Callable[..., Path]

    def recipe(self, **training: Any) -> Recipe:
        """A run of 60 steps of 8 examples, with checkpoints between its log lines."""
        return build_recipe(
            {"name": "tiny", **self.content, "training": {**_TRAINING, **training}}, "the test's recipe"
        )


def pictures(count: int = 30, side: int = 8) -> InMemory:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    return InMemory(pixels, torch.arange(count) % 3, ("a", "b", "c"))


def rows(count: int = 30) -> Stacked:
    generator = torch.Generator().manual_seed(0)
    return Stacked(torch.randint(0, 4, (count, 6), generator=generator), 4, torch.arange(count) % 2, ("a", "b"), "wxyz")


_DENOISER = {
    "data": {"flip": True},
    "network": {"channels": [8, 16], "groups": 4, "blocks": 1, "dropout": 0.1},
    "optimizer": {"decay": "cosine", "warmup": 5},
}
_TEXT = {
    "data": {"styles": ["mosaic", "inverted colours"], "plain": 2},
    "latents": {"codec": "a folder"},
    "text": {"layers": 1, "width": 16, "heads": 2, "tokens": 560, "window": 24},
    "network": {"channels": [8, 16], "groups": 4, "blocks": 1, "head_dim": 8, "attention": 4, "dropout": 0.1},
    "optimizer": {"decay": "cosine", "warmup": 5, "lr": 3e-3},
    "sampling": {"sampler": "ddim", "grid": "trailing", "steps": 4, "guidance": 2, "clip": None},
}
_OF_TRAINED = {**_TEXT, "text": {"encoder": "a model"}}
_TEXT_TOKENS = {
    "kind": "tokens",
    "tokens": {
        "codec": "a folder",
        "text": "a model",
        "steps": 10,
        "evaluations": 2,
        "layers": 1,
        "width": 16,
        "head": 8,
        "dropout": 0.1,
        "guidance": 2.0,
    },
    "optimizer": {"decay": "cosine", "warmup": 5, "lr": 3e-3},
}
_CODEC = {
    "kind": "codec",
    "data": {"flip": True},
    "network": {"channels": [8, 8], "groups": 4, "blocks": 1, "attention": 0},
    "optimizer": {"decay": "cosine", "warmup": 5, "lr": 3e-3},
}
_TOKENS = {
    "kind": "tokens",
    "objective": {"times": "loss-second-moment"},
    "tokens": {
        "of": "letters",
        "length": 6,
        "kernel": "mask-and-replace",
        "steps": 4,  # few, so that every one has a history soon
        "evaluations": 2,
        "layers": 1,
        "width": 16,
        "head": 8,
        "dropout": 0.1,
    },
    "optimizer": {"decay": "cosine", "warmup": 5},
}


def _denoiser(recipe: Recipe, folder: Path, **settings: Any) -> Path:
    return train(recipe, pictures(), folder, device="cpu", **settings)


def _codec(recipe: Recipe, folder: Path, **settings: Any) -> Path:
    return train_codec(recipe, pictures(side=16), folder, device="cpu", **settings)


def captioned(count: int = 30, side: int = 8) -> InMemory:
    """Colour pictures, each with a name, keywords and a group."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    things, colours = ("apple", "boat", "cat"), ("red", "green", "blue", "grey", "white")
    records = [
        {
            "file_name": f"{number}.png",
            "text": f"{colours[number % 5]} {things[number % 3]} {number}",
            "keywords": [things[number % 3], colours[number % 5], "thing"],
            "group": "things & more",
        }
        for number in range(count)
    ]
    return InMemory(pixels, records=tuple(records))


def gaussian_codec(seed: int = 0, channels: int = 3) -> KLCodec:
    """An autoencoder with random weights, of cells of two pixels."""
    torch.manual_seed(seed)
    config = {
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [4, 4],
        "layers_per_block": 1,
        "latent_channels": 2,
        "norm_num_groups": 2,
        "sample_size": 8,
        "mid_block_add_attention": False,
        "scaling_factor": 1.5,
    }
    return KLCodec(AutoencoderKL(AutoencoderKLConfig.from_dict(config)).eval().requires_grad_(False))


def _text(recipe: Recipe, folder: Path, **settings: Any) -> Path:
    pictures, _ = divided(recipe, captioned())
    return train_text(recipe, pictures, folder, codec=gaussian_codec(), device="cpu", **settings)


def reader(seed: int = 0) -> Reader:
    """A text encoder that nobody trained, which some words make a tokenizer for."""
    torch.manual_seed(seed)
    tokenizer = learn_tokenizer(["red apple", "green boat", "blue cat", "grey thing"] * 3, 540, 12)
    encoder = new_text_encoder(tokenizer, width=16, layers=1, heads=2)
    written = {"text_encoder": ("transformers", "CLIPTextModel"), "tokenizer": ("transformers", "CLIPTokenizer")}
    return Reader(Texts(STABLE_DIFFUSION, {"text_encoder": encoder}, {"text_encoder": "tokenizer"}, written))


def codes_codec() -> VQCodec:
    """An autoencoder of codes with random weights, of cells of two pixels."""
    torch.manual_seed(0)
    halves = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    config = {"block_out_channels": [8, 8], "norm_num_groups": 4, "num_vq_embeddings": 6, **halves}
    return VQCodec(VQAutoencoder(VQConfig.from_dict(config)).eval().requires_grad_(False))


def _of_trained(recipe: Recipe, folder: Path, **settings: Any) -> Path:
    pictures, _ = divided(recipe, captioned())
    return train_text(recipe, pictures, folder, codec=gaussian_codec(), reader=reader(), device="cpu", **settings)


def _text_tokens(recipe: Recipe, folder: Path, **settings: Any) -> Path:
    pictures, codec = captioned(), codes_codec()
    rows = tokens_of(pictures, codec)
    return train_text_tokens(recipe, pictures, rows, folder, codec=codec, reader=reader(), device="cpu", **settings)


def _tokens(recipe: Recipe, folder: Path, **settings: Any) -> Path:
    return train_tokens(recipe, rows(), folder, device="cpu", **settings)


KINDS = {
    "denoiser": Kind(_DENOISER, _denoiser),
    "text": Kind(_TEXT, _text),
    "text after a draft": Kind({**_TEXT, "draft": {"images": 80, "batch": 4, "patches": 2}}, _text),
    "text by a transformer": Kind(
        {**_TEXT, "network": {"kind": "dit", "layers": 1, "width": 16, "head_dim": 8, "dropout": 0.1}}, _text
    ),
    "text by a trained encoder": Kind(_OF_TRAINED, _of_trained),
    "tokens": Kind(_TOKENS, _tokens),
    "tokens of text": Kind(_TEXT_TOKENS, _text_tokens),
    # averages of a codebook, codes that are revived, and a rival from step 3 on
    "codec": Kind(
        {**_CODEC, "codec": {"entries": 64, "revive": 3}, "discriminator": {"layers": 1, "channels": 4, "start": 3}},
        _codec,
    ),
    "codec of a learned codebook": Kind({**_CODEC, "codec": {"codebook": "gradient", "entries": 8}}, _codec),
    "codec of Gaussian latents": Kind({**_CODEC, "codec": {"latents": "gaussian", "channels": 3}}, _codec),
}


def tiny(**training: Any) -> Recipe:
    """A denoiser's run."""
    return KINDS["denoiser"].recipe(**training)


def digest(folder: Path) -> dict[str, str]:
    """Hashes of all that a run ends with."""
    last = list_checkpoints(folder / "checkpoints")[-1]
    found = [*last.iterdir(), *(folder / "snapshots").glob("*"), *(folder / "model").rglob("*")]
    files = [folder / "log.jsonl", *sorted(file for file in found if file.is_file())]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def run_in_a_process(kind: str, recipe: Recipe, folder: Path) -> None:
    """Train on one thread, going on from where the folder is."""
    torch.set_num_threads(1)
    KINDS[kind].run(recipe, folder, resume=True)
