"""Training a model of tokens: the variational bound at one step a row, and the belief's own cross-entropy.

    L = T KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) / N + λ (−log p(x_0 | x_t)) / N,    t = n/T, s = (n − 1)/T,

n uniform on 1 … T, N tokens a row: the first is an unbiased estimate of the bound in nats a token, the prior aside. It
stays one where steps are drawn by importance and weighted with 1/π (`objectives.importance`).

Austin et al. Structured Denoising Diffusion Models in Discrete State-Spaces. NeurIPS 2021, eq. 5.
Gu et al. Vector Quantized Diffusion Model for Text-to-Image Synthesis. CVPR 2022, algorithm 1.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neblina.bundle.tokens import TokenBundle, save_token_bundle
from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.devices import pick_device
from neblina.core.errors import SettingError
from neblina.core.launch import world_size
from neblina.data.order import batch_numbers
from neblina.data.pictures import to_uint8
from neblina.data.tokens import Rows
from neblina.evaluation.likelihood import How
from neblina.evaluation.tokens import TokenLikelihood, token_likelihood
from neblina.objectives.categorical import step_loss
from neblina.objectives.importance import make_step_importance, step_time
from neblina.objectives.simple import spread_uniforms
from neblina.processes.discrete import DiscreteProcess
from neblina.samplers.generate_tokens import generate_tokens
from neblina.training.build_tokens import TokenCodec, new_token_model
from neblina.training.checkpoint import Checkpoint
from neblina.training.ema import Ema
from neblina.training.examples import step_seed
from neblina.training.learner import Learner, Stored
from neblina.training.optimizers import diverged, learning_rate, load_moments, new_optimizer, pace
from neblina.training.recipe import Recipe
from neblina.training.run import OnReport, run
from neblina.training.same import check_same_run

_MEASURED = 128  # rows that the likelihood is measured on
_TERMS = 8  # steps of its bound that are evaluated for each
_AT_ONCE = 16  # rows that are measured together


def train_tokens(
    recipe: Recipe,
    rows: Rows,
    folder: Path,
    *,
    codec: TokenCodec | None = None,
    held: Rows | None = None,
    resume: bool = False,
    device: str | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train a model of tokens, or go on with training one.

    Args:
        recipe: what to do.
        rows: to train on.
        folder: where the run lives.
        codec: that made the rows of pictures, None for letters.
        held: rows kept out of training, on which its likelihood is measured; None for none.
        resume, device, on_report: as in `training.run.train`.
    Returns:
        The model's folder.
    Raises:
        SettingError: a recipe that does not fit the rows, or not the run that is there.
        DivergenceError, StorageError, Interrupted: as in `training.run.train`.
    """
    check_alone(recipe)
    return run(
        lambda: TokenLearner(recipe, rows, codec, held, device=device),
        recipe,
        folder,
        resume=resume,
        on_report=on_report,
    )


def check_alone(recipe: Recipe) -> None:
    """Refuse what models of tokens are not trained in.

    Raises:
        SettingError: several processes, or half precision.
    """
    if world_size() > 1:
        raise SettingError("a model of tokens is trained by one process; start it without torchrun")
    if recipe.training.precision == "fp16":
        raise SettingError("a model of tokens is trained in fp32 or bf16, not fp16")


class TokenLearner(Learner):
    """A run in progress: the network, its average, the optimiser, and how far they are."""

    def __init__(
        self,
        recipe: Recipe,
        rows: Rows,
        codec: TokenCodec | None = None,
        held: Rows | None = None,
        *,
        device: str | None = None,
    ) -> None:
        if len(rows) == 0:
            raise SettingError("there is nothing to train on")
        self.recipe, self.rows, self.held = recipe, rows, held
        self.device = pick_device(device)
        self.bundle = self.new_bundle(codec)
        self.process = DiscreteProcess(self.bundle.kernel)
        self.net = self.bundle.net.to(self.device).train()
        self.ema = Ema(self.net, recipe.training.ema)
        self.optimizer = new_optimizer(recipe, self.net.parameters())
        self.denoiser = self.bundle.denoiser()
        self.importance = make_step_importance(recipe.objective.times, recipe.tokens.steps)
        bf16 = recipe.training.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)
        self.sums = {"loss": 0.0, "bits": 0.0, "cross_entropy": 0.0}
        self.summed = 0
        self.norm = 0.0

    def new_bundle(self, codec: TokenCodec | None) -> TokenBundle:
        """The untrained model."""
        return new_token_model(self.recipe, self.rows, codec)

    def advance(self) -> None:
        """One optimiser step.

        Raises:
            DivergenceError: the loss or a gradient is not finite.
        """
        training, chosen = self.recipe.training, self.recipe.tokens
        seed = step_seed(self.recipe, self.step, 0)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout
        numbers = batch_numbers(training.seed, len(self.rows), self.step * training.batch, training.batch)
        x0 = self.rows.read(numbers)
        places = spread_uniforms(len(x0), generator)
        drawn = None if self.importance is None else self.importance.draw(places)
        t = step_time(places, chosen.steps) if drawn is None else drawn.t
        s = (t * chosen.steps - 1).round() / chosen.steps
        uniform = torch.rand(x0.shape, dtype=torch.float64, generator=generator)
        condition = self.condition(numbers, generator)
        x = self.process.diffuse(x0, uniform, t).to(self.device)
        x0 = x0.to(self.device)
        with self.autocast:
            belief = self.denoiser.posterior(x, t, condition)
        parts = step_loss(self.process, x0, x, t, s, belief)
        tokens = math.prod(self.rows.shape)
        bounds, entropies = chosen.steps * parts.bound / tokens, parts.cross_entropy / tokens
        losses = bounds + chosen.auxiliary * entropies
        weight = 1 if drawn is None else drawn.weight.to(losses)
        loss, bound, entropy = ((weight * each).mean() for each in (losses, bounds, entropies))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.optimizer.clip, foreach=True)
        if not bool(loss.isfinite() & norm.isfinite()):
            raise diverged(self.recipe, self.step + 1)
        pace(self.optimizer, self.recipe, self.step)
        self.optimizer.step()
        if self.importance is not None and drawn is not None:
            self.importance.learn(drawn.bins, losses.detach())
        self.step += 1
        self.ema.update(self.net, self.step)
        for name, value in {"loss": loss, "bits": bound / math.log(2), "cross_entropy": entropy}.items():
            self.sums[name] += float(value.detach())
        self.summed += 1
        self.norm = float(norm)

    def figures(self) -> dict[str, float]:
        """Means over the steps since the last call: the loss, the bound in bits a token, and the cross-entropy."""
        means = {name: total / max(self.summed, 1) for name, total in self.sums.items()}
        self.sums, self.summed = dict.fromkeys(self.sums, 0.0), 0
        return {**means, "gradient_norm": self.norm, "lr": learning_rate(self.recipe, self.step - 1)}

    def words(self, figures: Mapping[str, float]) -> str:
        """The bound."""
        what = "letter" if self.rows.alphabet else "pixel" if self.recipe.tokens.of == "levels" else "token"
        return f"{figures['bits']:.3f} bits a {what}"

    def stored(self) -> Stored:
        """Its state, for a checkpoint."""
        progress = {
            "recipe": self.recipe.model_dump(mode="json"),
            "setting": self._setting(),
            "sums": self.sums,
            "summed": self.summed,
        }
        times = {} if self.importance is None else self.importance.state()
        return Stored(self.net, self.ema.net, self.optimizer, progress, times)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it is of another run; every difference is named.
        """
        check_same_run(checkpoint, self.recipe, self._setting())
        self.net.load_state_dict(checkpoint.net)
        self.ema.net.load_state_dict(checkpoint.ema)
        load_moments(self.optimizer, checkpoint.optimizer)
        if self.importance is not None:
            self.importance.restore(checkpoint.state)
        self.sums, self.summed = dict(checkpoint.progress["sums"]), checkpoint.progress["summed"]
        self.step = checkpoint.step

    @torch.no_grad()
    def preview(self) -> Tensor | None:
        """Pictures from the averaged weights, always of the same draws, a class a column; None for letters."""
        codec = self.bundle.codec
        if codec is None:
            return None
        tokens = self._sampled(4 * self.columns)
        return to_uint8(codec.decode_codes(tokens).cpu())

    def save(self, folder: Path) -> None:
        """Measure the likelihood and write the model, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """
        found = self._measured()
        card: dict[str, Any] = {
            "recipe": self.recipe.model_dump(mode="json"),
            "measured": {
                "held_out": self.held is not None,
                "rows": found.rows,
                "bits": found.total.bits,
                "error": found.total.error,
            },
        }
        if self.rows.alphabet:
            card["sample"] = ["".join(self.rows.alphabet[one] for one in row) for row in self._sampled(4).tolist()]
        save_token_bundle(replace(self.bundle, net=self.ema.net, card=card), folder)

    def _measured(self) -> TokenLikelihood:
        """The bound, from some of its steps, of some rows that were held out, or else trained on."""
        steps = self.recipe.tokens.steps
        rows = self.rows if self.held is None else self.held
        numbers = batch_numbers(self.recipe.training.seed, len(rows), 0, min(len(rows), _MEASURED))
        return token_likelihood(
            replace(self.denoiser, net=self.ema.net),
            rows,
            numbers,
            self.said(numbers),
            How(batch=_AT_ONCE, steps=steps, terms=min(_TERMS, steps)),
            device=self.device,
            on_progress=lambda done, count: self.tell("measuring the likelihood", int(done), count),
        )

    @torch.no_grad()
    def _sampled(self, count: int) -> Tensor:
        sampling = self.bundle.sampling
        return generate_tokens(
            replace(self.denoiser, net=self.ema.net),
            self.bundle.shape,
            range(count),
            condition=self.shown(count),
            sampler=sampling.sampler,
            steps=sampling.steps,
            guidance=sampling.guidance,
            device=self.device,
        )

    def condition(self, numbers: list[int], generator: torch.Generator) -> Condition:
        """What the network is told of rows that it is trained on, a share of it hidden."""
        if self.rows.labels is None or not self.bundle.label_names:
            return Condition()
        labels = self.rows.labels[numbers]
        hidden = torch.rand(len(labels), generator=generator) < self.recipe.training.label_dropout
        return Condition(labels.masked_fill(hidden, NULL_LABEL))

    def said(self, numbers: list[int]) -> Condition:
        """What it is told of rows that its likelihood is measured on: held-out ones, where there are any."""
        labels = (self.rows if self.held is None else self.held).labels
        return Condition(labels[numbers] if labels is not None and self.bundle.label_names else None)

    def shown(self, count: int) -> Condition:
        """What the samples of a sheet are of, a column each."""
        classes = len(self.bundle.label_names)
        return Condition(torch.arange(count) % min(classes, self.columns) if classes else None)

    def _setting(self) -> dict[str, object]:
        """What else the course of a run depends on."""
        codec = self.bundle.codec_digest
        return {
            **({} if codec is None else {"the codec that made the tokens": codec}),
            "rows": len(self.rows),
            "their shape": list(self.rows.shape),
            "classes of tokens": self.rows.classes,
            "classes": list(self.bundle.label_names),
        }
