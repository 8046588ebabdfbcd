"""Training the autoregressive baseline as the recipe mnist-tokens trains diffusion: the same tokens, order and budget.

    python benchmarks/discrete_train_ar.py PATH_TO_MNIST CODEC_FOLDER --out runs/autoregressive

Everything is the recipe's: blocks, their number and width, batch, optimiser and its rate, averaged weights, pictures
held out, labels and how often they are hidden. The loss is the cross-entropy of each token behind those before it.
OUT/transformer holds the averaged weights, OUT/measured.json what was measured; bits a token of held-out pictures are
exact here, where diffusion has a bound.
"""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from neblina.bundle.components import Opening, read_component, write_component
from neblina.bundle.files import write_json
from neblina.data.holding import split
from neblina.data.order import batch_numbers
from neblina.data.sources import open_pictures
from neblina.data.tokens import Stacked
from neblina.nets.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from neblina.training.build_tokens import open_codec, tokens_of
from neblina.training.ema import Ema
from neblina.training.examples import step_seed
from neblina.training.optimizers import diverged, learning_rate, new_optimizer
from neblina.training.recipe import Recipe, load_recipe

AT_ONCE = 256  # rows that are measured together


def read_rows(recipe: Recipe) -> tuple[Stacked, Stacked]:
    """The tokens of the recipe's pictures: those to train on, and those held out."""
    pictures, _ = open_pictures(recipe.data.source)
    codec = open_codec(recipe)
    training, held = split(pictures, recipe.data.holdout, recipe.training.seed)
    return tokens_of(training, codec), tokens_of(held, codec)


def new_net(recipe: Recipe, rows: Stacked) -> AutoregressiveTransformer:
    """The untrained network; the label behind the last class says that none is told."""
    chosen, (high, wide) = recipe.tokens, rows.shape
    config = AutoregressiveConfig(
        num_categories=rows.classes,
        sample_size=(high, wide),
        num_attention_heads=chosen.width // chosen.head,
        attention_head_dim=chosen.head,
        num_layers=chosen.layers,
        dropout=chosen.dropout,
        num_class_embeds=len(rows.label_names) + 1,
    )
    torch.manual_seed(recipe.training.seed)
    return AutoregressiveTransformer(config)


def open_net(folder: Path) -> AutoregressiveTransformer:
    """What this script trained."""
    net = read_component(folder / "transformer", Opening())
    assert isinstance(net, AutoregressiveTransformer)
    return net.eval().requires_grad_(False)


@torch.no_grad()
def bits(net: AutoregressiveTransformer, rows: Stacked, *, told: bool) -> float:
    """−log2 p(x) a token, exactly, with the label told or hidden."""
    assert rows.labels is not None
    spent = 0.0
    for numbers in torch.arange(len(rows)).split(AT_ONCE):
        x = rows.read(numbers.tolist()).flatten(1)
        labels = rows.labels[numbers] if told else torch.full_like(numbers, len(rows.label_names))
        spent += float(F.cross_entropy(net(x, labels).flatten(0, 1), x.flatten(), reduction="sum"))
    return spent / math.log(2) / len(rows) / math.prod(rows.shape)


def train(recipe: Recipe, rows: Stacked) -> AutoregressiveTransformer:
    """The averaged network after the recipe's training."""
    assert rows.labels is not None
    training, net = recipe.training, new_net(recipe, rows).train()
    ema, optimizer = Ema(net, training.ema), new_optimizer(recipe, net.parameters())
    began, summed = time.perf_counter(), 0.0
    for step in range(recipe.steps):
        seed = step_seed(recipe, step, 0)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout
        numbers = batch_numbers(training.seed, len(rows), step * training.batch, training.batch)
        x = rows.read(numbers).flatten(1)
        hidden = torch.rand(len(x), generator=generator) < training.label_dropout
        labels = rows.labels[numbers].masked_fill(hidden, len(rows.label_names))
        loss = F.cross_entropy(net(x, labels).flatten(0, 1), x.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.optimizer.clip, foreach=True)
        if not bool(loss.isfinite() & norm.isfinite()):
            raise diverged(recipe, step + 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        optimizer.step()
        ema.update(net, step + 1)
        summed += float(loss.detach())
        if (step + 1) % 100 == 0 or step + 1 == recipe.steps:
            since, count = time.perf_counter() - began, (step % 100) + 1
            left = since / (step + 1) * (recipe.steps - step - 1)
            speed = (step + 1) * training.batch / since
            print(
                f"step {step + 1}/{recipe.steps}: {summed / count / math.log(2):.3f} bits a token, {speed:.0f} "
                f"images/s, {left / 60:.1f} minutes left",
                flush=True,
            )
            summed = 0.0
    return ema.net


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mnist")
    parser.add_argument("codec")
    parser.add_argument("--out", type=Path, default=Path("runs/autoregressive"))
    parser.add_argument("--images", type=int, default=150_000)
    given = parser.parse_args()
    settings = {
        "data": {"source": given.mnist},
        "tokens": {"codec": given.codec},
        "training": {"images": given.images},
    }
    recipe = load_recipe("mnist-tokens", settings)
    rows, held = read_rows(recipe)
    began, processor = time.perf_counter(), time.process_time()
    net = train(recipe, rows)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    write_component(net, given.out / "transformer")
    measured = {
        "images": recipe.steps * recipe.training.batch,
        "seconds": seconds,
        "processor_seconds": processor,
        "parameters": sum(one.numel() for one in net.parameters()),
        "held_out_bits": bits(net, held, told=True),
        "held_out_bits_without_label": bits(net, held, told=False),
        "training_bits": bits(
            net, Stacked(rows.tokens[: len(held)], rows.classes, rows.labels, rows.label_names), told=True
        ),
    }
    write_json(given.out / "measured.json", measured)
    print(measured)


if __name__ == "__main__":
    main()
