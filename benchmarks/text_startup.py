"""How long it takes from nothing to an encoded prompt, and what of it is transformers being imported.

python benchmarks/text_startup.py

The rows take turns, so that a machine that slows down for a while slows all of them.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import machine
from sd_model import TINY_TEXT, write_text

ROUNDS = 7
ENCODE = """
from pathlib import Path
from neblina.encoders.families import {family}, encode_prompts
from neblina.bundle.components import Opening
from neblina.bundle.texts import read_text_encoder
from neblina.encoders.tokens import load_tokenizer
folder = Path({folder!r})
encoder = read_text_encoder(folder / "text_encoder", load_tokenizer(folder / "tokenizer"), Opening())
encode_prompts({family}, [encoder], ["a red boat"])
"""


def make_bert(folder: Path) -> None:
    """A small text encoder of latent diffusion: the same work without transformers."""
    from neblina.bundle.files import write_json
    from neblina.core.tensors import save_tensors
    from neblina.encoders.ldm_bert import LDMBertConfig, LDMBertModel

    config = {"vocab_size": 8, "d_model": 32, "encoder_layers": 2, "encoder_ffn_dim": 64, "encoder_attention_heads": 2}
    write_json(folder / "text_encoder/config.json", {"architectures": ["LDMBertModel"], **config})
    save_tensors(LDMBertModel(LDMBertConfig(**config)).state_dict(), folder / "text_encoder/model.safetensors")
    write_json(folder / "tokenizer/tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "boat"]
    (folder / "tokenizer/vocab.txt").write_text("\n".join(words) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        clip, bert = Path(place) / "clip", Path(place) / "bert"
        write_text(clip, **TINY_TEXT)
        make_bert(bert)
        rows = {
            "python that does nothing": "pass",
            "import torch": "import torch",
            "import torch, CLIPTextModel from its own module": (
                "import torch; from transformers.models.clip.modeling_clip import CLIPTextModel"
            ),
            "import torch, CLIPTextModel from transformers": "import torch; from transformers import CLIPTextModel",
            "import torch, CLIPTextModel and CLIPTokenizer from transformers": (
                "import torch; from transformers import CLIPTextModel, CLIPTokenizer"
            ),
            "ours: load a small CLIP and encode a prompt": ENCODE.format(family="STABLE_DIFFUSION", folder=str(clip)),
            "ours: load a small LDM-BERT and encode a prompt": ENCODE.format(
                family="LATENT_DIFFUSION", folder=str(bert)
            ),
        }
        took: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(ROUNDS):
            for name, code in rows.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
                took[name].append(time.perf_counter() - began)
    print(f"{machine()}\nmedians of {ROUNDS}, and the shortest\n\n| what | seconds | shortest |\n| --- | ---: | ---: |")
    for name, each in took.items():
        print(f"| {name} | {statistics.median(each):.2f} | {min(each):.2f} |")


if __name__ == "__main__":
    main()
