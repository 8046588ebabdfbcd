"""Quality at equal wall-clock: our trainer against a plain diffusers + accelerate loop, scored by the same features.

    python benchmarks/quality.py digits
    python benchmarks/quality.py PATH_TO_MNIST --minutes 5

Both train the same class-conditional U-Net on the same pictures with the same batch, learning rate, warm-up, linear
decay, EMA and number of seconds. Theirs is what the tutorials do: eps, the linear schedule, independent times,
DDPMScheduler to train and DDIMScheduler to sample. Ours is the packaged recipe. The third row reads their weights here
and samples them as ours are sampled, which tells training from sampling.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from peers import machine
from torch import Tensor

from neblina.bundle.folder import load_bundle
from neblina.bundle.schedulers import Sampling
from neblina.data.holding import split
from neblina.data.pictures import Pictures, to_float
from neblina.data.sources import open_pictures
from neblina.tasks.measure import Measured, measure
from neblina.tasks.model import Model
from neblina.training.build import new_model
from neblina.training.recipe import Recipe, load_recipe
from neblina.training.run import train
from neblina.training.trainer import Trainer

CPU = torch.device("cpu")


def data(source: str) -> tuple[Recipe, Pictures, Pictures]:
    """Recipe, training pictures, held-out pictures."""
    if source == "digits":
        recipe = load_recipe("digits")
        pictures, _ = open_pictures("digits")
        return (recipe, *split(pictures, recipe.data.holdout, recipe.training.seed))
    recipe = load_recipe("mnist", {"data": {"source": source}})
    training, _ = open_pictures(source)
    held, _ = open_pictures(str(next(Path(source).glob("t10k-images*"))))
    return recipe, training, held


def ours(recipe: Recipe, training: Pictures, minutes: float, folder: Path) -> tuple[Model, float, int]:
    """Our recipe with as many images as fit in the time; returns the model and the seconds that training took."""
    probe = Trainer(recipe, training, device="cpu")
    for _ in range(3):
        probe.advance()
    began = time.perf_counter()
    for _ in range(20):
        probe.advance()
    per_step = (time.perf_counter() - began) / 20
    images = int(60 * minutes / per_step) * recipe.training.batch
    changed = recipe.training.model_copy(update={"images": images, "sample_every": 0, "checkpoint_every": 10**9})
    recipe = recipe.model_copy(update={"training": changed})
    began = time.perf_counter()
    place = train(recipe, training, folder, device="cpu")
    return Model(load_bundle(place), CPU), time.perf_counter() - began, images


def theirs(recipe: Recipe, training: Pictures, seconds: float, folder: Path) -> int:
    """The plain loop, for as many seconds; returns the images it saw."""
    accelerator = Accelerator(cpu=True)
    config = dict(new_model(recipe, training).net.config.to_dict())
    config.pop("_class_name")
    classes = len(training.label_names)
    torch.manual_seed(0)
    net = UNet2DModel(**{**config, "num_class_embeds": classes})
    pixels = to_float(training.read(range(len(training))))
    assert training.labels is not None
    dataset = torch.utils.data.TensorDataset(pixels, training.labels)
    loader = torch.utils.data.DataLoader(dataset, batch_size=recipe.training.batch, shuffle=True)
    rate = recipe.optimizer
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate.lr, betas=rate.betas, weight_decay=rate.weight_decay)
    net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    ema = EMAModel(net.parameters(), decay=recipe.training.ema, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    step, began = 0, time.perf_counter()
    while True:
        for clean, labels in loader:
            left = 1 - (time.perf_counter() - began) / seconds
            if left <= 0:
                ema.copy_to(net.parameters())
                # our own pipeline class reads the folder; diffusers' has no class-conditional pixel pipeline
                DDPMPipeline(accelerator.unwrap_model(net), scheduler).save_pretrained(folder)
                return step * recipe.training.batch
            noise = torch.randn_like(clean)
            t = torch.randint(0, 1000, (len(clean),))
            prediction = net(scheduler.add_noise(clean, noise, t), t, labels).sample
            accelerator.backward(F.mse_loss(prediction, noise))
            accelerator.clip_grad_norm_(net.parameters(), rate.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate.lr * left * min(1, (step + 1) / (rate.warmup + 1))
            optimizer.step()
            optimizer.zero_grad()
            ema.step(net.parameters())
            step += 1


def by_diffusers(folder: Path, steps: int) -> Any:
    """Pictures for labels by diffusers' own network and scheduler."""
    net = UNet2DModel.from_pretrained(folder / "unet").eval()
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")

    @torch.no_grad()
    def generate(labels: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for some in torch.split(labels, 256):
            shape = (len(some), net.config.in_channels, net.config.sample_size, net.config.sample_size)
            x = torch.randn(shape, generator=generator)
            scheduler.set_timesteps(steps)
            for t in scheduler.timesteps:
                x = scheduler.step(net(x, t, some).sample, t, x).prev_sample
            parts.append(x)
        return torch.cat(parts)

    return generate


def row(name: str, result: Measured, seconds: float, images: int) -> str:
    return (
        f"| {name} | {seconds:.0f} | {images:,} | {result.agreement:.1%} | {result.frechet_generated:.2f} | "
        f"**{result.frechet_ratio:.2f}** |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--minutes", type=float, default=1.3)
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps for theirs")
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    recipe, training, held = data(given.source)
    work = Path(tempfile.mkdtemp())
    score = {"data_name": recipe.name, "repeats": given.repeats, "most": given.most}
    print(f"{machine()}\n{recipe.name}: {len(training):,} training, {len(held):,} held-out pictures\n", flush=True)
    print("| trained by | seconds | images | read as asked | Fréchet | over that of real |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    try:
        model, seconds, images = ours(recipe, training, given.minutes, work / "ours")
        print(row("neblina, 25 evaluations", measure(model, training, held, **score), seconds, images), flush=True)
        seen = theirs(recipe, training, seconds, work / "theirs")
        nobody: Any = None
        result = measure(nobody, training, held, **score, generate=by_diffusers(work / "theirs", given.steps))
        print(row(f"diffusers, {given.steps} DDIM evaluations", result, seconds, seen), flush=True)
        same = replace(load_bundle(work / "theirs"), sampling=Sampling(steps=25, clip=1.0))
        result = measure(Model(same, CPU), training, held, **score)
        print(row("diffusers' weights, sampled here, 25 evaluations", result, seconds, seen), flush=True)
        print(f"\nfeatures: {result.extractor}; {result.count} pictures a set, {result.repeats} repeats; real held-out")
        print(
            f"pictures are read as their label in {result.agreement_real:.1%} of cases, and real training pictures have"
        )
        print(f"a Fréchet distance of {result.frechet_real:.2f} to them.")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
