"""Folders of published models: their configurations as they are, and weights of their real names and sizes.

The weights take no place: a file's header says names, types and shapes, and behind it is a hole of the right length.
Names and shapes are those of diffusers' and transformers' own classes on the meta device, as the versions that wrote
the files called them.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

FOLDER = Path(__file__).parent / "published"
NAMES = sorted(place.stem for place in FOLDER.glob("*.json"))
Shapes = Mapping[str, tuple[int, ...]]
_OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def published(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def is_text(config: Mapping[str, Any]) -> bool:
    return "_class_name" not in config


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Of the parameters, under the names of now; those of transformers begin with text_model."""
    return _shapes(json.dumps(config))


@cache
def _shapes(config: str) -> Shapes:
    said = json.loads(config)
    with torch.device("meta"):
        if not is_text(said):
            net = getattr(diffusers, said["_class_name"]).from_config(said)
        elif said["model_type"] == "ldmbert":
            net = LDMBertModel(LDMBertConfig(**said))
        else:
            kind = said.get("architectures", ["CLIPTextModel"])[0]
            net = getattr(transformers, kind)(transformers.CLIPTextConfig(**said))
    found = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if not is_text(said) or said["model_type"] == "ldmbert":
        return found
    plain = {name.removeprefix("text_model."): shape for name, shape in found.items()}
    return {name if name.startswith("text_projection.") else f"text_model.{name}": it for name, it in plain.items()}


def write_hole(
    place: Path,
    shapes: Shapes,
    kind: str = "F32",
    numbers: Shapes | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """A safetensors file of the right length that takes no place.

    Args:
        kind: F32, F16 or BF16, of all tensors.
        numbers: tensors of int64 beside them.
        notes: the file's metadata.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(notes or {})}}
    end = 0
    for held, dtype, size in ((shapes, kind, {"F32": 4}.get(kind, 2)), (numbers or {}, "I64", 8)):
        for name, shape in held.items():
            start, end = end, end + size * torch.Size(shape).numel()
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def shrunk(content: dict[str, Any]) -> dict[str, Any]:
    """A Stable Diffusion 1 whose networks are narrow and shallow, and says all else as it did."""
    small = {
        "unet": {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 64, "layers_per_block": 1},
        "vae": {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1},
        "text_encoder": {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "projection_dim": 64,
        },
    }
    files = {f"{part}/config.json": {**content["files"][f"{part}/config.json"], **less} for part, less in small.items()}
    return {**content, "files": {**content["files"], **files}}


def write_folder(content: Mapping[str, Any], folder: Path, words: Mapping[str, str]) -> None:
    """The folder of a published model, as its repository is downloaded.

    Args:
        words: files of CLIP's tokenizer, for every folder of one.
    """
    halves = content.get("variants", {})
    for path, said in content["files"].items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(said, indent=2))
        part = place.parent.name if "/" in path else {"AutoencoderKL": "vae"}.get(said.get("_class_name", ""), "unet")
        if place.name == "tokenizer_config.json":
            for file, text in (words if said["tokenizer_class"] == "CLIPTokenizer" else bert_words()).items():
                (place.parent / file).write_text(text, encoding="utf-8")
        if place.name == "config.json":
            shapes = shapes_of(said)
            if part in content.get("old_attention", ()):
                shapes = {_old(each): shape for each, shape in shapes.items()}
            numbers = {}
            if is_text(said) and content.get("position_ids"):
                numbers = {"text_model.embeddings.position_ids": (1, said["max_position_embeddings"])}
            stem = "model" if is_text(said) else "diffusion_pytorch_model"
            kind = "F32" if "vae" in part else "F16"  # both are found in one folder
            write_hole(place.parent / f"{stem}.safetensors", shapes, kind, numbers)
            for variant, parts in halves.items():
                if part in parts:
                    write_hole(place.parent / f"{stem}.{variant}.safetensors", shapes, "F16", numbers)
    for path in content.get("beside", ()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / path).exists():
            (folder / path).write_text("{}")


def _old(name: str) -> str:
    if ".attentions." in name:
        for new, old in _OLD_ATTENTION.items():
            name = name.replace(new, old)
    return name


def bert_words() -> dict[str, str]:
    """A vocabulary as long as BERT's, with its special tokens where they are."""
    words = [f"[unused{number}]" for number in range(30522)]
    words[0] = "[PAD]"
    words[100:104] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return {"vocab.txt": "\n".join(words) + "\n"}
