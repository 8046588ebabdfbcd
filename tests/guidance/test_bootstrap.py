"""A place that is shown alone sees the canvas inside its mask and one colour outside, and then the canvas as it is."""

import torch
from models import small_bundle
from torch import Tensor

from neblina.core.conditions import Condition
from neblina.core.noise import SampleNoise
from neblina.core.plan import Leaf, Query, conditional
from neblina.guidance.bootstrap import Backdrop, bootstrapped, until_share
from neblina.guidance.settings import Composition, GuidanceSettings, Place
from neblina.processes.grids import make_grid
from neblina.processes.tables import Cosine
from neblina.samplers.generate import generate

SCHEDULE = Cosine()
COLOURS = torch.tensor([[-1.0, 0.0], [0.5, 0.25], [0.0, 1.0]])
MASK = torch.zeros(4, 4)
MASK[1:3, 1:3] = 1


def backdrop(seed: int = 0, indices: range = range(3)) -> Backdrop:
    noise = SampleNoise(seed, indices)(torch.empty(len(indices), 2, 4, 4))
    return Backdrop(COLOURS, noise, seed, indices)


def seen(query: Query, behind: Backdrop, until: float) -> Leaf:
    plan = conditional(small_bundle().denoiser(), Condition())
    (leaf,), _ = bootstrapped(plan, MASK, behind, SCHEDULE, until=until)(query)
    return leaf


def query(*times: float) -> Query:
    x = torch.randn(len(times), 2, 4, 4, generator=torch.Generator().manual_seed(9))
    return Query(x, torch.tensor(times, dtype=torch.float64))


def test_inside_the_mask_it_sees_the_canvas_and_outside_a_colour_that_is_as_noisy() -> None:
    asked, behind = query(0.9, 0.7, 0.6), backdrop()
    leaf = seen(asked, behind, 0.5)
    assert torch.equal(leaf.x[..., MASK > 0], asked.x[..., MASK > 0])
    alpha, sigma = SCHEDULE.alpha(asked.t), SCHEDULE.sigma(asked.t)
    for number in range(3):
        noisy = [alpha[number] * c[:, None, None] + sigma[number] * behind.noise[number] for c in COLOURS]
        outside = [torch.allclose(leaf.x[number][..., MASK == 0], one.float()[..., MASK == 0]) for one in noisy]
        assert sum(outside) == 1


def test_a_faded_place_is_shown_as_noisy_as_the_rest() -> None:
    """A mixture of the canvas and the colour would be less noisy than either."""
    asked = query(0.9)
    plan = conditional(small_bundle().denoiser(), Condition())
    (leaf,), _ = bootstrapped(plan, 0.5 * MASK, backdrop(indices=range(1)), SCHEDULE, until=0.5)(asked)
    assert torch.equal(leaf.x[..., MASK > 0], asked.x[..., MASK > 0])


def test_a_share_is_a_step_at_least_and_leaves_one() -> None:
    for steps, share, wanted in ((2, 0.2, 1), (1, 0.5, 0), (50, 0.99, 49), (4, 0.0, 0)):
        times = make_grid("log_snr", SCHEDULE, steps)
        assert until_share(times, share) == float(times[wanted])


def test_at_the_time_and_below_it_the_very_canvas_is_asked_about() -> None:
    asked = query(0.5, 0.4, 0.1)
    assert seen(asked, backdrop(), 0.5).x is asked.x
    mixed = query(0.9, 0.5, 0.1)
    leaf = seen(mixed, backdrop(), 0.5)
    assert torch.equal(leaf.x[1:], mixed.x[1:])
    assert not torch.equal(leaf.x[0], mixed.x[0])


def test_the_colour_is_of_the_picture_and_the_time_whoever_asks_and_not_always_the_same() -> None:
    asked = query(0.9, 0.9, 0.8)
    whole = seen(asked, backdrop(), 0.5).x
    picked = Query(asked.x[[2, 0]], asked.t[[2, 0]], torch.tensor([2, 0]))
    assert torch.equal(seen(picked, backdrop(), 0.5).x, whole[[2, 0]])
    assert torch.equal(seen(Query(asked.x[2:], asked.t[2:]), backdrop(indices=range(2, 3)), 0.5).x, whole[2:])

    def colours(seed: int) -> list[list[float]]:
        """Of picture 0 at twelve times, in a place that is nowhere: what is seen without its noise."""
        found = []
        for t in make_grid("uniform", SCHEDULE, 24)[1:13].tolist():
            at = backdrop(seed).at(
                SCHEDULE, Query(asked.x[:1], torch.tensor([t], dtype=torch.float64), torch.tensor([0]))
            )
            time = torch.tensor([t], dtype=torch.float64)
            clean = (at[0] - SCHEDULE.sigma(time) * backdrop(seed).noise[0]) / SCHEDULE.alpha(time)
            found.append([round(value, 3) for value in clean[:, 0, 0].tolist()])
        return found

    assert len({tuple(one) for one in colours(0)}) == len(COLOURS)
    assert colours(0) != colours(1)


def test_so_large_a_share_of_the_steps_is_walked_alone() -> None:
    """Counted at the network: what it is shown outside the mask is the colour at that many first steps."""
    bundle = small_bundle(classes=2, schedule="cosine", parameterisation="v")
    mask = torch.zeros(8, 8)
    mask[:4] = 1
    noise = SampleNoise(0, [0])(torch.empty(1, 3, 8, 8))
    for steps, share, wanted in ((10, 0.2, 2), (7, 0.5, 4), (10, 0.0, 0), (10, 0.6, 6)):
        times = make_grid("log_snr", bundle.schedule, steps)
        until = until_share(times, share)
        behind = Backdrop(torch.full((1, 3), 1.0), noise, 0, [0])
        places = (Place(Condition(torch.tensor([1])), mask),)
        guidance = GuidanceSettings(composition=Composition(places, backdrop=behind, until=until))
        shown: list[Tensor] = []
        hook = bundle.net.register_forward_pre_hook(lambda _, given, shown=shown: shown.append(given[0]))
        condition = Condition(torch.tensor([0]))
        generate(bundle.denoiser(), (3, 8, 8), [0], condition=condition, sampler="ddim", steps=steps, guidance=guidance)
        hook.remove()
        alone = [not torch.equal(*pair) for pair in shown]  # the background and the place, in one call
        assert alone == [number < wanted for number in range(steps)]
