"""The only loop: live generators, at different steps and of different samplers, answered together.

Progress, previews, early stopping and cancelling live here and in no sampler. So do the grad mode and the splitting of
a batch that does not fit in memory: inside a suspended generator either would leak. A generator is always closed, and
a run that fails takes no other with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from neblina.core.appetite import Appetite
from neblina.core.errors import Cancelled
from neblina.core.plan import Plan, Query, answer
from neblina.core.posterior import Posterior
from neblina.samplers.registry import Sampling, TokenSampling


@dataclass(frozen=True)
class Step:
    """What a callback sees after every answer.

    Attributes:
        evaluation: how many answers this run has had, from 1.
        query: what was asked; query.x of shape (B, *), query.t of shape (B,).
        posterior: what was answered.
    """

    evaluation: int
    query: Query
    posterior: Posterior


OnStep = Callable[[Step], bool | None]


@dataclass(eq=False)
class Run:
    """One sampling on its way.

    Attributes:
        sampling: the generator.
        plan: who answers its queries.
        on_step: called after every answer; returning True stops the run, and the belief at that point is its result.
        result: the samples, or the exception that ended the run; None while it is live.
    """

    sampling: Sampling | TokenSampling
    plan: Plan
    on_step: OnStep | None = None
    result: Tensor | Exception | None = None
    query: Query | None = field(default=None, init=False)
    belief: Tensor | None = field(default=None, init=False)
    evaluations: int = field(default=0, init=False)


@dataclass
class Driver:
    """Answers any number of runs, which may join and leave between steps.

    Attributes:
        max_batch: most samples in one network call; None is what free memory holds.
    """

    max_batch: int | None = None
    appetite: Appetite = field(default_factory=Appetite, init=False)
    live: list[Run] = field(default_factory=list)

    def add(self, run: Run) -> Run:
        """Take in a run and move it to its first query."""
        self._advance(run, None)
        return run

    def step(self) -> None:
        """Answer every live run once, with one network call per group of leaves that can share one."""
        questions = [(run.plan, run.query) for run in self.live if run.query is not None]
        with torch.no_grad():
            answers = answer(questions, max_batch=self.max_batch or self.appetite)
        for run, posterior in zip(list(self.live), answers, strict=True):
            if isinstance(posterior, Exception):
                self._end(run, posterior)
            elif self._observe(run, posterior):
                self._advance(run, posterior)

    def close(self) -> None:
        """End what is still live."""
        for run in list(self.live):
            self._end(run, Cancelled("sampling was cancelled"))

    def _observe(self, run: Run, posterior: Posterior) -> bool:
        """Show the answer to the run's callback; whether the run goes on."""
        run.evaluations += 1
        if run.query is None:
            return True
        if run.query.rows is None:
            run.belief = posterior.guess
        elif run.belief is not None:  # only some samples were asked about; the others keep what was last believed
            run.belief = run.belief.index_copy(0, run.query.rows.to(posterior.guess.device), posterior.guess)
        else:
            run.belief = posterior.guess
        if run.on_step is None:
            return True
        try:
            stop = run.on_step(Step(run.evaluations, run.query, posterior))
        except Exception as error:
            self._end(run, error)
            return False
        if stop:
            self._end(run, run.belief)
        return not stop

    def _advance(self, run: Run, posterior: Posterior | None) -> None:
        try:
            with torch.no_grad():
                # a generator is started by sending None
                run.query = run.sampling.send(posterior)  # type: ignore[arg-type]
        except StopIteration as end:
            self._end(run, end.value)
        except Exception as error:
            self._end(run, error)
        else:
            if run not in self.live:
                self.live.append(run)

    def _end(self, run: Run, result: Tensor | Exception) -> None:
        run.result = result
        run.sampling.close()
        self.live = [other for other in self.live if other is not run]


def drive(
    runs: Sequence[Run], *, cancelled: Callable[[], bool] | None = None, max_batch: int | None = None
) -> list[Tensor | Exception]:
    """Drive runs to their ends together.

    Args:
        cancelled: asked before every step; once it says True, the live runs end with Cancelled.
        max_batch: most samples in one network call; None is what free memory holds.
    Returns:
        Each run's samples, shape (B, *), or the exception that ended it.
    """
    driver = Driver(max_batch)
    try:
        for run in runs:
            driver.add(run)
        while driver.live and not (cancelled is not None and cancelled()):
            driver.step()
    finally:
        driver.close()
    return [run.result for run in runs if run.result is not None]


def sample(
    sampling: Sampling | TokenSampling,
    plan: Plan,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    max_batch: int | None = None,
) -> Tensor:
    """Drive one run and return its samples, or raise what ended it."""
    (result,) = drive([Run(sampling, plan, on_step)], cancelled=cancelled, max_batch=max_batch)
    if isinstance(result, Exception):
        raise result
    return result
