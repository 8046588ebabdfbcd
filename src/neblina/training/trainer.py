"""The training step, and all the state there is between two of them.

Each step: take the next pictures, draw a time and noise for each, diffuse them in closed form, have the network
predict, compare, update, and let the averaged weights follow. Everything random in a step is a function of (seed,
step, process), so a run continues from (weights, average, optimiser state, step) with the bits it would have had.

Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020, algorithm 1.
"""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from neblina.bundle.bundle import Bundle
from neblina.bundle.folder import save_bundle
from neblina.core.conditions import Condition
from neblina.core.devices import pick_device
from neblina.core.errors import CheckpointError, SettingError
from neblina.core.launch import join_processes, world_size
from neblina.core.shapes import expand
from neblina.data.pictures import Pictures, to_uint8
from neblina.guidance.settings import GuidanceSettings
from neblina.objectives.importance import Importance
from neblina.objectives.simple import Compared
from neblina.samplers.generate import generate
from neblina.training.build import new_model, new_objective
from neblina.training.checkpoint import Checkpoint
from neblina.training.ema import Ema
from neblina.training.examples import Batch, Examples, draw_examples, read_batch, step_seed
from neblina.training.learner import Learner, Stored
from neblina.training.optimizers import diverged, learning_rate, load_moments, new_optimizer, pace
from neblina.training.posthoc import PowerAverages
from neblina.training.recipe import Recipe
from neblina.training.same import check_same_run, setting_of

LEVELS = 5  # equal intervals of time that the loss is logged in
_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer(Learner):
    """A denoiser's run in progress: the network, its average, the optimiser, and how far they are."""

    def __init__(self, recipe: Recipe, pictures: Pictures, *, device: str | None = None) -> None:
        if len(pictures) == 0:
            raise SettingError("there are no pictures to train on")
        self.recipe = recipe
        self.pictures = pictures
        chosen = pick_device(device)
        together = world_size() > 1
        join_processes(cpu=chosen.type == "cpu")
        self.accelerator = Accelerator(cpu=together and chosen.type == "cpu", mixed_precision="no")
        # under torchrun every process has a device of its own
        self.device = self.accelerator.device if together else chosen
        self.process = self.accelerator.process_index
        if recipe.training.batch % self.accelerator.num_processes:
            raise SettingError(
                f"training.batch {recipe.training.batch} cannot be shared by {self.accelerator.num_processes} processes"
            )
        self.bundle = self.new_bundle()
        self.bundle.net.to(self.device)
        # convolutions are up to 1.8 times faster backwards with the channels last, in fp32 too (docs/log.md)
        self.bundle.net.channels_last()
        self.bundle.net.train()
        self.ema = Ema(self.bundle.net, recipe.training.ema)
        self.averages = PowerAverages(self.bundle.net) if recipe.training.snapshots_every else None
        self.columns = min(len(self.bundle.label_names), 10) or 10
        self.objective, self.importance = new_objective(recipe, self.bundle.schedule)
        self.optimizer = new_optimizer(recipe, self.trained())
        dtype = _PRECISIONS[recipe.training.precision]
        self.autocast = torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)
        net = self.accelerator.prepare(self.bundle.net) if together else self.bundle.net
        self.denoiser = replace(self.bundle.denoiser(), net=net)
        self.loss_sum = torch.zeros((), device=self.device)
        self.levels = torch.zeros(2, LEVELS, device=self.device)
        self.summed = 0
        self.gradient_norm = torch.zeros((), device=self.device)
        self.first_bad = torch.full((), math.inf, device=self.device)
        self._ahead = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Batch]] | None = None

    def new_bundle(self) -> Bundle:
        """The untrained model."""
        return new_model(self.recipe, self.pictures)

    def trained(self) -> list[dict[str, Any]]:
        """What the optimiser updates, in groups."""
        return [{"params": list(self.bundle.net.parameters())}]

    def advance(self) -> None:
        """One optimiser step."""
        torch.manual_seed(step_seed(self.recipe, self.step, self.process))  # dropout
        seen = self._draw(self.step, self._batch())
        x0, noise = (one.to(self.device, non_blocking=True) for one in (seen.x0, seen.noise))
        with self.autocast:
            compared = self.objective(self.denoiser, x0, noise, seen.t, seen.condition)
            losses = compared.loss if seen.weight is None else expand(seen.weight, compared.loss) * compared.loss
            loss = losses.mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.bundle.net.parameters(), self.recipe.optimizer.clip, foreach=True)
        pace(self.optimizer, self.recipe, self.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.importance is not None:
            self._learn_times(self.importance, seen, compared)
        self.step += 1
        self.ema.update(self.bundle.net, self.step)
        if self.averages is not None:
            self.averages.update(self.bundle.net, self.step)

        # kept on the device: asking for them would make it wait
        self.loss_sum += loss.detach()
        self.levels += by_level(seen.t, compared.loss.detach())
        self.summed += 1
        self.gradient_norm = norm.detach()
        fine = loss.isfinite()
        if not self.scaler.is_enabled():  # a loss scaler skips steps whose gradient overflows
            fine = fine & norm.isfinite()
        self.first_bad = torch.where(fine, self.first_bad, self.first_bad.clamp(max=self.step))

    def examples(self, step: int) -> Examples:
        """What this process sees in step number `step`, counted from 0."""
        return self._draw(step, self._read(step))

    def check(self) -> None:
        """Refuse to go on after a loss or a gradient that is not finite, in any process.

        Raises:
            DivergenceError: naming the step.
        """
        first = float(self.accelerator.gather(self.first_bad[None]).min())
        if math.isfinite(first):
            raise diverged(self.recipe, int(first))

    def agree(self, stopping: bool) -> bool:
        """Whether any process wants to stop. Several processes ask each other every tenth step, since asking waits."""
        if self.accelerator.num_processes == 1:
            return stopping
        if self.step % 10:
            return False
        votes = self.accelerator.reduce(torch.tensor(float(stopping), device=self.device), "sum")
        return bool(votes > 0)

    def mean_loss(self) -> float:
        """Mean over the steps since the last call, over all processes."""
        total = self.accelerator.reduce(self.loss_sum / self.summed, "mean")
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.summed = 0
        return float(total)

    def mean_levels(self) -> list[float | None]:
        """Mean loss in equal intervals of time, from data to noise, over the steps since the last call; None for an
        interval that none of them saw."""
        sums, counts = self.accelerator.reduce(self.levels, "mean").tolist()
        self.levels = torch.zeros_like(self.levels)
        return [one / count if count else None for one, count in zip(sums, counts, strict=True)]

    def figures(self) -> dict[str, Any]:
        """Loss, gradient norm and learning rate of the steps since the last call."""
        return {
            "loss": self.mean_loss(),
            "loss_by_level": self.mean_levels(),
            "gradient_norm": float(self.gradient_norm),
            "lr": learning_rate(self.recipe, self.step - 1),
        }

    def wait(self) -> None:
        """For the other processes."""
        self.accelerator.wait_for_everyone()

    def share_loss(self) -> None:
        """Let every process know the loss of all of them since the last log line, as a checkpoint will tell them."""
        self.loss_sum = self.accelerator.reduce(self.loss_sum, "mean")
        self.levels = self.accelerator.reduce(self.levels, "mean")

    def progress(self) -> dict[str, Any]:
        """What a checkpoint stores beside the tensors; the loss is that of all processes after `share_loss`."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "setting": self._setting(),
            "loss_sum": float(self.loss_sum),
            "summed": self.summed,
            "levels": self.levels.tolist(),
            "scaler": self.scaler.state_dict(),
        }

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores as tensors beside weights, averages and optimiser."""
        times = {} if self.importance is None else self.importance.state()
        averages = {} if self.averages is None else self.averages.state()
        return {**times, **averages}

    def stored(self) -> Stored:
        """Its state, for a checkpoint."""
        self.share_loss()
        return Stored(self.bundle.net, self.ema.net, self.optimizer, self.progress(), self.state())

    def save(self, folder: Path) -> None:
        """Write the model, with the averaged weights.

        Raises:
            StorageError: the disk is full or refuses.
        """
        save_bundle(replace(self.bundle, net=self.ema.net), folder)

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Begin, where there is a checkpoint from there.

        Raises:
            CheckpointError: the processes read different checkpoints.
            SettingError: it is of another run.
        """
        self.agree_on(checkpoint)
        super().begin(checkpoint)

    def agree_on(self, checkpoint: Checkpoint | None) -> None:
        """Refuse to begin where another process does not.

        Raises:
            CheckpointError: the processes read different checkpoints.
        """
        mine = torch.tensor([-1 if checkpoint is None else checkpoint.step], device=self.device)
        steps = set(self.accelerator.gather(mine).tolist())
        if len(steps) > 1:
            raise CheckpointError(
                f"the processes see different checkpoints (steps {sorted(steps)}); "
                "put the run's folder where all of them see it"
            )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made.

        Raises:
            SettingError: it was made by another recipe, on other pictures or by another number of processes; every
                difference is named.
        """
        check_same_run(checkpoint, self.recipe, self._setting())
        self.bundle.net.load_state_dict(checkpoint.net)
        self.ema.net.load_state_dict(checkpoint.ema)
        load_moments(self.optimizer, checkpoint.optimizer)
        self.loss_sum.fill_(checkpoint.progress["loss_sum"])
        self.summed = checkpoint.progress["summed"]
        if "levels" in checkpoint.progress:  # checkpoints of before they were kept have none
            self.levels.copy_(torch.tensor(checkpoint.progress["levels"]))
        if checkpoint.progress["scaler"]:
            self.scaler.load_state_dict(checkpoint.progress["scaler"])
        if self.importance is not None:
            self.importance.restore(checkpoint.state)
        if self.averages is not None:
            self.averages.restore(checkpoint.state)
        self.step = checkpoint.step

    def preview(self) -> Tensor:
        """Pictures from the averaged weights as they are, uint8; always of the same noise, a class a column."""
        condition = self.shown(4 * self.columns)
        with self.autocast:
            latents = generate(
                replace(self.denoiser, net=self.ema.net),
                self.bundle.latent_shape,
                range(4 * self.columns),
                condition=condition,
                sampler=self.bundle.sampling.sampler,
                steps=self.bundle.sampling.steps,
                grid=self.bundle.sampling.grid,
                guidance=GuidanceSettings(self.bundle.sampling.guidance, clip=self.bundle.sampling.clip),
                device=self.device,
            )
        return to_uint8(self.bundle.codec.decode(latents))

    def shown(self, count: int) -> Condition:
        """What the pictures of a sample sheet are of, a column each."""
        return Condition(torch.arange(count) % self.columns if self.bundle.label_names else None)

    def _setting(self) -> dict[str, Any]:
        """What else the course of a run depends on."""
        processes = self.accelerator.num_processes
        return setting_of(self.pictures, self.bundle.label_names, processes=processes)

    def _draw(self, step: int, batch: Batch) -> Examples:
        return draw_examples(
            self.recipe,
            self.bundle.schedule,
            step,
            batch,
            codec=self.bundle.codec,
            process=self.process,
            importance=self.importance,
        )

    @torch.no_grad()
    def _learn_times(self, importance: Importance, seen: Examples, compared: Compared) -> None:
        """Remember what was seen, in every process what all of them saw: they must draw from one density.

        The density is kept on the CPU, so a step with importance sampling waits for its device.
        """
        assert seen.bins is not None
        observe = importance.rule.observe
        values = compared.loss if observe is None else observe(self.denoiser, compared, seen.t)
        bins = self.accelerator.gather(seen.bins.to(self.device))
        importance.learn(bins, self.accelerator.gather(values))

    def _batch(self) -> Batch:
        """This step's share of pictures and labels; the next step's are being read meanwhile."""
        waiting = self._next
        ready = waiting[1].result() if waiting is not None and waiting[0] == self.step else self._read(self.step)
        self._next = (self.step + 1, self._ahead.submit(self._read, self.step + 1))
        return ready

    def _read(self, step: int) -> Batch:
        processes = self.accelerator.num_processes
        return read_batch(self.recipe, self.pictures, step, process=self.process, processes=processes)


def by_level(t: Tensor, loss: Tensor) -> Tensor:
    """Losses of a batch, shape (B,), at times t, shape (B,): their sums and counts by level, shape (2, LEVELS)."""
    level = ((t * LEVELS).ceil() - 1).clamp(0, LEVELS - 1)  # a step of a discrete process is one of as many in each
    member = (level[:, None] == torch.arange(LEVELS)).to(loss.device, torch.float32, non_blocking=True)
    return torch.stack([loss.float() @ member, member.sum(0)])
