"""Training a codec: an autoencoder of pictures whose latents are codes (VQ-VAE, VQGAN) or Gaussian (KL).

    L = L_rec(x, x̂) + w_p d(x, x̂) + L_latents + w_d λ L_GAN(x̂)

with the perceptual distance d only where an extractor is given, and the adversarial term only from the step on that the
recipe says; λ is the ratio of what L_rec + w_p d and L_GAN pull at the decoder's last layer. Everything random in a
step is a function of (seed, step), and a checkpoint holds the codebook's averages, the discriminator and its optimiser
beside what every run's holds.

van den Oord, Vinyals, Kavukcuoglu. Neural Discrete Representation Learning. NeurIPS 2017.
Esser, Rombach, Ommer. Taming Transformers for High-Resolution Image Synthesis. CVPR 2021, eq. 4 to 7.
Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. CVPR 2022, appendix G.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.codec import save_codec, wrapped
from neblina.core.devices import pick_device
from neblina.core.errors import SettingError
from neblina.core.launch import world_size
from neblina.data.pictures import Pictures, Subset, inventory, to_float, to_uint8
from neblina.evaluation.codec import measure_codec, measure_latents, some_of
from neblina.nets.vq_autoencoder import VQAutoencoder
from neblina.objectives.adversarial import adaptive_weight, discriminator_loss, fooling_loss
from neblina.objectives.codec import reconstruction_loss
from neblina.objectives.perceptual import load_perceptual
from neblina.training.build_codec import new_autoencoder, new_discriminator
from neblina.training.checkpoint import Checkpoint
from neblina.training.ema import Ema
from neblina.training.examples import read_batch, step_seed
from neblina.training.latents import Codes, Gaussian
from neblina.training.learner import Learner, Stored
from neblina.training.optimizers import (
    diverged,
    learning_rate,
    load_moments,
    named_moments,
    new_optimizer,
    numbered_moments,
    pace,
)
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport, run
from neblina.training.same import check_same_run, setting_of

_SHOWN = 30  # pictures on a sample sheet, each above its reconstruction
_RIVAL, _MOMENTS = "discriminator.", "discriminator_optimizer."


def train_codec(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    held: Pictures | None = None,
    resume: bool = False,
    device: str | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a codec, or go on with training one.

    Args:
        recipe: what to do; process, objective, sampling, label dropout and snapshots mean nothing here, and are refused
            where they are not the defaults.
        pictures: the training pictures; labels are not looked at.
        folder: where the run lives: `log.jsonl`, `samples/`, `checkpoints/`, and at the end `model/`.
        held: pictures kept out of training, which the codec is measured on; None or none of them for the training
            pictures.
        resume: go on from the newest whole checkpoint; from the beginning if there is none.
        device: "cpu", "cuda", …; None for the best there is.
        on_report: told after every step.
    Returns:
        The codec's folder.
    Raises:
        SettingError: a recipe that does not fit the pictures, or not the run that is there.
        DivergenceError: the loss stopped being finite; the last checkpoint stands.
        StorageError: the disk is full; the last checkpoint stands.
        Interrupted: on Ctrl-C, after finishing the step and saving.
    """
    if world_size() > 1:
        raise SettingError("a codec is trained by one process; start it without torchrun")
    if recipe.training.precision == "fp16":
        raise SettingError("a codec is trained in fp32 or bf16, not fp16")
    held = held if held is not None else Subset(pictures, ())
    return run(
        lambda: CodecLearner(recipe, pictures, held, device=device), recipe, folder, resume=resume, on_report=on_report
    )


class CodecLearner(Learner):
    """A codec's run in progress: the autoencoder, its average, what holds its latents, and its rival."""

    def __init__(self, recipe: Recipe, pictures: Pictures, held: Pictures, *, device: str | None = None) -> None:
        if len(pictures) == 0:
            raise SettingError("there are no pictures to train on")
        self.recipe, self.pictures, self.held = recipe, pictures, held
        self.device = pick_device(device)
        net = new_autoencoder(recipe, pictures)
        rival = new_discriminator(recipe, pictures)
        path = recipe.reconstruction.perceptual
        self.perceptual = None if path is None else load_perceptual(path, pictures.shape, self.device)
        self.net = net.to(self.device).train()
        self.net.channels_last()
        self.ema = Ema(self.net, recipe.training.ema)
        bf16 = recipe.training.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)
        self.latents = (
            Codes(self.net, recipe.codec, self.autocast)
            if isinstance(self.net, VQAutoencoder)
            else Gaussian(self.net, recipe.codec, self.autocast)
        )
        learned = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.optimizer = new_optimizer(recipe, learned)
        self.rival = None if rival is None else rival.to(self.device)
        self.rival_optimizer = None
        if self.rival is not None:
            self.rival.channels_last()
            self.rival_optimizer = new_optimizer(recipe, self.rival.parameters())
        self.sums: dict[str, tuple[float, int]] = {}

    def advance(self) -> None:
        """One optimiser step, of the discriminator too where it takes part.

        Raises:
            DivergenceError: a gradient is not finite.
        """
        generator = torch.Generator().manual_seed(step_seed(self.recipe, self.step, 0))
        x = self._pictures(generator)
        coded = self.latents.through(x, generator)
        compared, terms = self._compared(coded.made, x)
        loss = compared + coded.loss
        terms = {"loss": loss, **terms, **coded.terms}
        rival = self.rival if self.step >= self.recipe.discriminator.start else None
        pull = loss
        if rival is not None:
            rival.requires_grad_(False)
            fooling = fooling_loss(self._scores(coded.made))
            weight = adaptive_weight(compared, fooling, self.net.decoder.conv_out.weight)
            pull = loss + self.recipe.discriminator.weight * weight * fooling
            terms |= {"fooling": fooling, "adaptive_weight": weight}
        self._update(self.net, self.optimizer, pull)
        if rival is not None and self.rival_optimizer is not None:
            rival.requires_grad_(True)
            told = discriminator_loss(self._scores(x), self._scores(coded.made.detach()))
            self._update(rival, self.rival_optimizer, told)
            terms["discriminator"] = told
        self._remember(terms)
        self.latents.settle(self.optimizer, self.ema.net, generator)
        self.step += 1
        self.ema.update(self.net, self.step)

    def figures(self) -> dict[str, float]:
        """Means of the loss and its terms over the steps since the last call, and how the codebook was used."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return {**means, **self.latents.figures(), "lr": learning_rate(self.recipe, self.step - 1)}

    def words(self, figures: Mapping[str, float]) -> str:
        """How much of the codebook is used."""
        if "perplexity" not in figures:
            return ""
        return f"codes used {figures['codebook_usage']:.0%}, perplexity {figures['perplexity']:.1f}"

    def stored(self) -> Stored:
        """Its state, for a checkpoint."""
        progress = {
            "recipe": self.recipe.model_dump(mode="json"),
            "setting": self._setting(),
            "sums": {name: list(each) for name, each in self.sums.items()},
        }
        state = self.latents.state()
        if self.rival is not None and self.rival_optimizer is not None:
            moments = named_moments(self.rival_optimizer.state_dict())
            state |= {_RIVAL + name: value for name, value in self.rival.state_dict().items()}
            state |= {_MOMENTS + name: value for name, value in moments.items()}
        return Stored(self.net, self.ema.net, self.optimizer, progress, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it is of another run; every difference is named.
        """
        check_same_run(checkpoint, self.recipe, self._setting())
        self.net.load_state_dict(checkpoint.net)
        self.ema.net.load_state_dict(checkpoint.ema)
        load_moments(self.optimizer, checkpoint.optimizer)
        self.latents.restore(checkpoint.state)
        if self.rival is not None and self.rival_optimizer is not None:
            self.rival.load_state_dict(_below(_RIVAL, checkpoint.state))
            moments = numbered_moments(_below(_MOMENTS, checkpoint.state))
            groups = self.rival_optimizer.state_dict()["param_groups"]
            load_moments(self.rival_optimizer, {"state": moments, "param_groups": groups})
        self.sums = {name: (total, count) for name, (total, count) in checkpoint.progress["sums"].items()}
        self.step = checkpoint.step

    @torch.no_grad()
    def preview(self) -> Tensor:
        """Rows of pictures, each above what the averaged weights make of them, uint8."""
        seen = some_of(self.held if len(self.held) else self.pictures, _SHOWN)
        codec = wrapped(self.ema.net)
        made = to_uint8(codec.decode(codec.encode(to_float(seen)))).cpu()
        columns = range(0, len(seen), self.columns)
        rows = [half[start : start + self.columns] for start in columns for half in (seen, made)]
        return torch.cat(rows)

    def save(self, folder: Path) -> None:
        """Measure the codec with the averaged weights and write it, its latents scaled to a standard deviation of 1.

        Raises:
            StorageError: the disk is full or refuses.
        """
        latents = measure_latents(wrapped(self.ema.net), self.pictures)
        self.ema.net.config = replace(self.ema.net.config, scaling_factor=1 / latents.std)
        held = len(self.held) > 0
        measured = measure_codec(wrapped(self.ema.net), self.held if held else self.pictures)
        card = {
            "recipe": self.recipe.model_dump(mode="json"),
            "trained_on": inventory(self.pictures),
            "measured": {
                "held_out": held,
                **asdict(measured),
                "latent_mean": latents.mean,
                "latent_std": latents.std,
            },
        }
        save_codec(self.ema.net, folder, card)

    def _setting(self) -> dict[str, Any]:
        """What else the course of a run depends on."""
        setting = {**setting_of(self.pictures, ()), "held-out pictures": len(self.held)}
        return setting if self.perceptual is None else {**setting, "extractor": self.perceptual.digest}

    def _pictures(self, generator: torch.Generator) -> Tensor:
        """This step's pictures in [−1, 1], mirrored as the recipe says."""
        pixels, _ = read_batch(self.recipe, self.pictures, self.step)
        x = to_float(pixels)
        if self.recipe.data.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        return x.to(self.device)

    def _compared(self, made: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How far off the pictures are, and the terms of that."""
        chosen = self.recipe.reconstruction
        off = reconstruction_loss(made, x, chosen.loss)
        if self.perceptual is None:
            return off, {"reconstruction": off}
        seen = self.perceptual(made, x)
        return off + chosen.perceptual_weight * seen, {"reconstruction": off, "perceptual": seen}

    def _scores(self, x: Tensor) -> Tensor:
        assert self.rival is not None
        with self.autocast:
            scores: Tensor = self.rival(x)
        return scores.float()

    def _update(self, net: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), self.recipe.optimizer.clip)
        if not bool(norm.isfinite()):
            raise diverged(self.recipe, self.step + 1)
        pace(optimizer, self.recipe, self.step)
        optimizer.step()

    def _remember(self, terms: Mapping[str, Tensor]) -> None:
        for name, term in terms.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + float(term.detach()), count + 1


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
