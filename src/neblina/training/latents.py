"""The two kinds of latents that a codec is trained to have: what their losses are, and what is kept of them.

Codes that follow the latents nearest to them are running averages,

    N_i ← γ N_i + (1 − γ) n_i,    m_i ← γ m_i + (1 − γ) Σ_j z_ij,    e_i = m_i / N_i,

with n_i latents z_ij nearest to e_i in a batch. A code that none was nearest to for some steps is put where a latent of
the batch is, a random one by the step's seed; so are all that the very first batch does not use, whatever they were
initialised at.

van den Oord, Vinyals, Kavukcuoglu. Neural Discrete Representation Learning. NeurIPS 2017, appendix A.1.
Dhariwal et al. Jukebox: A Generative Model for Music. 2020, section 3.1 (random restarts).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neblina.nets.autoencoder import AutoencoderKL
from neblina.nets.vq_autoencoder import VQAutoencoder
from neblina.objectives.codec import (
    Quantised,
    codebook_loss,
    commitment_loss,
    divergence_loss,
    draw_latents,
    perplexity,
    quantise,
    usage,
)
from neblina.training.recipe import Codec

TINY = 1e-6  # cluster sizes below which a code stays where it is


@dataclass(frozen=True)
class Coded:
    """A batch after the way through the codec.

    Attributes:
        made: the pictures it made, shape (B, C, H, W), float32.
        loss: of its latents, weighted.
        terms: of that loss by name, unweighted.
    """

    made: Tensor
    loss: Tensor
    terms: Mapping[str, Tensor]


class Latents(ABC):
    """A codec's latents in training."""

    @abstractmethod
    def through(self, pictures: Tensor, generator: torch.Generator) -> Coded:
        """Pictures in [−1, 1], shape (B, C, H, W), encoded and decoded."""

    def settle(self, optimizer: torch.optim.Optimizer, average: nn.Module, generator: torch.Generator) -> None:
        """What is done to the network and its average after an optimiser step, beside it."""
        return

    def figures(self) -> dict[str, float]:
        """What the log says of the latents since the last call."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores beside the weights."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what a checkpoint stored."""
        return


class Gaussian(Latents):
    """Draws from the Gaussian that the encoder says."""

    def __init__(self, net: AutoencoderKL, settings: Codec, autocast: AbstractContextManager[Any]) -> None:
        self.net, self.settings, self.autocast = net, settings, autocast

    def through(self, pictures: Tensor, generator: torch.Generator) -> Coded:
        """As `Latents.through`."""
        with self.autocast:
            moments = self.net.encode(pictures)
        moments = moments.float()
        count, channels, *cells = moments.shape
        noise = torch.randn(count, channels // 2, *cells, generator=generator).to(moments.device)
        with self.autocast:
            made = self.net.decode(draw_latents(moments, noise))
        divergence = divergence_loss(moments, pictures[0].numel())
        return Coded(made.float(), self.settings.kl * divergence, {"kl": divergence})


class Codes(Latents):
    """Entries of a codebook.

    Attributes:
        counts: how often each code was used since the last log line, shape (K,), int64.
        unused: steps since each was, shape (K,), int64.
        sizes: N, shape (K,), float32.
        sums: m, shape (K, C), float32.
    """

    def __init__(self, net: VQAutoencoder, settings: Codec, autocast: AbstractContextManager[Any]) -> None:
        self.net, self.settings, self.autocast = net, settings, autocast
        weight = net.quantize.embedding.weight
        self.averaged = settings.codebook == "ema"
        weight.requires_grad_(not self.averaged)
        self.counts = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
        self.unused = torch.full_like(self.counts, settings.revive)  # what the first batch does not use is dead
        self.sizes = torch.ones(len(weight), device=weight.device)
        self.sums = weight.detach().clone()
        self._found: Quantised | None = None

    def through(self, pictures: Tensor, generator: torch.Generator) -> Coded:
        """As `Latents.through`."""
        with self.autocast:
            latents = self.net.encode(pictures)
        found = quantise(self.net.quantize, latents.float())
        with self.autocast:
            made = self.net.decode_codes(found.passed)
        commitment = commitment_loss(found)
        loss = self.settings.commitment * commitment
        self._found = found
        return Coded(made.float(), loss if self.averaged else loss + codebook_loss(found), {"commitment": commitment})

    @torch.no_grad()
    def settle(self, optimizer: torch.optim.Optimizer, average: nn.Module, generator: torch.Generator) -> None:
        """Have the codes follow their latents, if they are averages, and revive the dead ones.

        Raises:
            ValueError: nothing went through since.
        """
        if self._found is None:
            raise ValueError("codes settle after pictures went through")
        rows = self._found.latents.detach().movedim(1, -1).flatten(0, -2)
        codes, self._found = self._found.codes.flatten(), None
        used = torch.bincount(codes, minlength=len(self.counts))
        self.counts += used
        self.unused = torch.where(used > 0, 0, self.unused + 1)
        if self.averaged:
            self.follow(rows, codes, used)
        if self.settings.revive:
            revived = self.revive(rows, generator)
            weight = self.net.quantize.embedding.weight
            if isinstance(average, VQAutoencoder):  # where a code was is no past of what it now is
                average.quantize.embedding.weight[revived] = weight[revived]
            for name in ("exp_avg", "exp_avg_sq"):
                if name in optimizer.state.get(weight, {}):
                    optimizer.state[weight][name][revived] = 0

    @torch.no_grad()
    def follow(self, rows: Tensor, codes: Tensor, used: Tensor) -> None:
        """One step of the running averages.

        Args:
            rows: latents, shape (n, C).
            codes: nearest to each, shape (n,).
            used: how often each code is, shape (K,).
        """
        weight = self.net.quantize.embedding.weight
        self.sizes.lerp_(used.to(self.sizes), 1 - self.settings.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes, rows), 1 - self.settings.decay)
        means = self.sums / self.sizes.clamp(min=TINY)[:, None]
        weight.copy_(torch.where(self.sizes[:, None] > TINY, means, weight))

    @torch.no_grad()
    def revive(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Put dead codes where latents are, each at another one; the numbers of those that were revived.

        Args:
            rows: latents, shape (n, C). Where more codes are dead than these, the rest waits for the next batch.
            generator: which latents.
        """
        dead = (self.unused >= self.settings.revive).nonzero()[:, 0][: len(rows)]
        chosen = torch.randperm(len(rows), generator=generator)[: len(dead)].to(rows.device)
        self.net.quantize.embedding.weight[dead] = rows[chosen]
        self.sums[dead] = rows[chosen]
        self.sizes[dead] = 1
        self.unused[dead] = 0
        return dead

    def figures(self) -> dict[str, float]:
        """Share of the codes that were used since the last call, and their perplexity."""
        figures = {"codebook_usage": usage(self.counts), "perplexity": perplexity(self.counts)}
        self.counts.zero_()
        return figures

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint stores beside the weights."""
        return {f"codebook.{name}": getattr(self, name) for name in ("counts", "unused", "sizes", "sums")}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what a checkpoint stored."""
        for name in ("counts", "unused", "sizes", "sums"):
            getattr(self, name).copy_(state[f"codebook.{name}"])
