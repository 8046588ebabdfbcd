"""Bits per dimension of MNIST's test pictures, by the variational bound and by the probability-flow ODE.

    python benchmarks/likelihood.py PATH_TO_MNIST
    python benchmarks/likelihood.py PATH_TO_MNIST --model MODEL --count 10000

Trains the packaged recipe for some minutes (or takes a model), then measures both ways on test pictures drawn at
random, each given its label. Two references stand beside the model: a Gaussian with the mean and the covariance of the
training pictures, dequantised, and gzip.
"""

import argparse
import gzip
import math
import tempfile
import time
from pathlib import Path

import torch
from peers import machine

from neblina.data.pictures import Pictures
from neblina.data.sources import open_pictures
from neblina.evaluation.bits import SCALE_BITS, dequantised
from neblina.evaluation.likelihood import How
from neblina.tasks.evaluate import evaluate
from neblina.tasks.loading import load
from neblina.tasks.model import Model
from neblina.training.recipe import load_recipe
from neblina.training.run import train
from neblina.training.trainer import Trainer


def trained(folder: Path, work: Path, minutes: float) -> Path:
    """A model trained by the packaged recipe for about so many minutes."""
    settings = {"sample_every": 0, "checkpoint_every": 10**9}
    recipe = load_recipe("mnist", {"data": {"source": str(folder)}, "training": settings})
    pictures, _ = open_pictures(str(folder))
    probe = Trainer(recipe, pictures, device="cpu")
    for _ in range(3):
        probe.advance()
    began = time.perf_counter()
    for _ in range(20):
        probe.advance()
    steps = int(60 * minutes / ((time.perf_counter() - began) / 20))
    images = steps * recipe.training.batch
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"images": images})})
    began = time.perf_counter()
    place = train(recipe, pictures, work, device="cpu")
    print(f"trained on {images:,} pictures, repeats counted, in {time.perf_counter() - began:.0f} s", flush=True)
    return place


def gaussian_bits(training: Pictures, test: Pictures) -> float:
    """Bits per dimension of test pictures, dequantised, under a Gaussian fitted to dequantised training pictures."""
    generator = torch.Generator().manual_seed(0)

    def rows(pictures: Pictures) -> torch.Tensor:
        pixels = pictures.read(range(min(len(pictures), 20_000)))
        uniform = torch.rand(pixels.shape, generator=generator, dtype=torch.float64)
        return dequantised(pixels, uniform).double().flatten(1)

    known = rows(training)
    law = torch.distributions.MultivariateNormal(known.mean(0), torch.cov(known.T))
    held = rows(test)
    return float(-law.log_prob(held).mean() / held.shape[1] / math.log(2)) + SCALE_BITS


def gzip_bits(test: Pictures) -> float:
    """Bits per dimension that gzip takes for all test pictures, one after the other."""
    pixels = test.read(range(len(test)))
    return 8 * len(gzip.compress(pixels.numpy().tobytes(), 9)) / pixels.numel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--terms", type=int, default=100)
    parser.add_argument("--batch", type=int, default=50)
    given = parser.parse_args()
    print(machine(), f"{torch.get_num_threads()} threads", sep=", ", flush=True)
    training, _ = open_pictures(str(given.folder))
    (place,) = sorted(given.folder.glob("t10k-images*"))
    test, _ = open_pictures(str(place))
    with tempfile.TemporaryDirectory() as work:
        model: Model = load(given.model or trained(given.folder, Path(work) / "run", given.minutes), device="cpu")
        began = time.perf_counter()
        how = How(batch=given.batch, terms=given.terms)
        found = evaluate(model, ["nll"], Path(work), data=str(place), count=given.count, how=how)
        seconds = time.perf_counter() - began
    nll = found.results["nll"].to_dict()
    bound, ode = nll["bound"], nll["ode"]
    print(f"{nll['pictures']:,} test pictures in {seconds:.0f} s; terms: {bound['evaluated']} of {bound['of']}\n")
    print("| what | bits per dimension | standard error |\n| --- | ---: | ---: |")
    parts = [("variational bound, " + bound["variance"] + " variance", bound["total"])]
    parts += [(f"&nbsp; {part}", bound[part]) for part in ("prior", "steps", "reconstruction")]
    parts += [("variational bound, the other variance", bound["other"])]
    parts += [(f"probability-flow ODE, {ode['evaluations']:.0f} evaluations a picture", ode["total"])]
    for words, mean in parts:
        print(f"| {words} | {mean['bits']:.4f} | {mean['error']:.4f} |")
    print(f"| a Gaussian with the training pictures' covariance | {gaussian_bits(training, test):.4f} | |")
    print(f"| gzip of all test pictures | {gzip_bits(test):.4f} | |")


if __name__ == "__main__":
    main()
