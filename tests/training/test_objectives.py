"""The recipe's objective reaches the training step, survives being killed, and ends in the model's folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from learners import KINDS, digest, pictures, tiny
from processes import run_in_two_processes

from neblina.bundle.files import CARD
from neblina.bundle.folder import load_bundle
from neblina.core.conditions import Condition
from neblina.core.errors import CheckpointError, Interrupted, SettingError
from neblina.objectives.importance import HISTORY
from neblina.processes.gaussian import GaussianProcess, Learned
from neblina.tasks.loading import load
from neblina.training.checkpoint import list_checkpoints, load_checkpoint
from neblina.training.recipe import Objective, Recipe, build_recipe
from neblina.training.run import Report, train
from neblina.training.trainer import Trainer


def wanting(objective: dict[str, Any], **training: Any) -> Recipe:
    recipe = tiny(**training).model_dump()
    return build_recipe({**recipe, "objective": objective}, "the test's recipe")


@pytest.mark.training
@pytest.mark.parametrize(
    ("kind", "times"),
    [("denoiser", "score-norm"), ("denoiser", "loss-second-moment"), ("tokens", "loss-second-moment")],
)
@pytest.mark.slow
def test_what_importance_sampling_remembers_survives_a_kill(kind: str, times: str, tmp_path: Path) -> None:
    """The kill comes after the density has begun to differ from uniform, and between two checkpoints."""
    recipe, run = KINDS[kind].recipe(images=60 * 64, batch=64, checkpoint_every=7), KINDS[kind].run
    recipe = recipe.model_copy(update={"objective": Objective(times=times)})
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(recipe, undisturbed)

    def kill(report: Report) -> None:
        if report.step == 45:
            raise Interrupted("killed")

    with pytest.raises(Interrupted):
        run(recipe, killed, on_report=kill)
    state = load_checkpoint(list_checkpoints(killed / "checkpoints")[-1]).state
    assert int(state["counts"].min()) >= HISTORY
    run(recipe, killed, resume=True)
    assert digest(killed) == digest(undisturbed)
    assert any(name.endswith("state.safetensors") for name in digest(killed))


@pytest.mark.training
def test_a_run_with_uniform_times_stores_no_more_than_before(tmp_path: Path) -> None:
    train(tiny(images=4 * 8), pictures(), tmp_path, device="cpu")
    last = list_checkpoints(tmp_path / "checkpoints")[-1]
    assert not (last / "state.safetensors").exists()


@pytest.mark.training
def test_a_hybrid_run_makes_a_model_that_knows_its_variance(tmp_path: Path) -> None:
    model = train(wanting({"loss": "hybrid"}, images=30 * 8), pictures(), tmp_path, device="cpu")
    bundle = load_bundle(model)
    assert bundle.learned_variance
    assert (bundle.net.config.in_channels, bundle.net.config.out_channels) == (1, 2)
    x, t, s = torch.randn(2, 1, 8, 8), torch.full((2,), 0.5).double(), torch.full((2,), 0.4).double()
    belief = bundle.denoiser().posterior(x, t, Condition(torch.tensor([0, -1])))
    process = GaussianProcess(bundle.schedule)
    step = process.reverse(x, t, s, belief, Learned())
    small, large = (
        one.sqrt().float()[:, None, None, None] for one in (process.true_variance(t, s), process.added_variance(s, t))
    )
    assert step.std is not None
    assert bool(((step.std > 0.5 * small) & (step.std < 2 * large)).all())
    assert float(step.std.detach().std()) > 0
    assert bool(load(model).generate(n=2, steps=5, sampler="ddpm_learned").isfinite().all())
    scheduler = DDPMScheduler.from_pretrained(model / "scheduler")
    assert scheduler.config.variance_type == "learned_range"


@pytest.mark.training
@pytest.mark.parametrize("loss", ["simple", "hybrid"])
def test_a_card_that_contradicts_the_network_about_its_variance_is_refused(loss: str, tmp_path: Path) -> None:
    model = train(wanting({"loss": loss}, images=8), pictures(), tmp_path, device="cpu")
    card = json.loads((model / CARD).read_text())
    card["learned_variance"] = not card["learned_variance"]
    (model / CARD).write_text(json.dumps(card))
    said = "fixed, and its network has 2 output channels" if loss == "hybrid" else "learned, and its network has 1"
    with pytest.raises(CheckpointError, match=said):
        load_bundle(model)


@pytest.mark.training
def test_a_foreign_scheduler_that_calls_a_learned_variance_fixed_is_refused(tmp_path: Path) -> None:
    recipe = wanting({"loss": "hybrid"}, images=8)
    model = train(
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"labels": False})}), pictures(), tmp_path
    )
    (model / CARD).unlink()
    place = model / "scheduler" / "scheduler_config.json"
    scheduler = json.loads(place.read_text())
    place.write_text(json.dumps({**scheduler, "variance_type": "fixed_small"}))
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json says that the variance of this model is fixed"):
        load_bundle(model)


@pytest.mark.training
@pytest.mark.parametrize("objective", [{"weighting": "min-snr"}, {"loss": "hybrid", "vlb_weight": 0.1}])
def test_the_loss_of_a_step_is_the_recipe_s(objective: dict[str, Any]) -> None:
    trainer = Trainer(wanting(objective), pictures(), device="cpu")
    seen = trainer.examples(0)
    trainer.bundle.net.eval()  # no dropout
    loss = trainer.objective(trainer.denoiser, seen.x0, seen.noise, seen.t, Condition(seen.labels)).loss
    plain = Trainer(wanting({"loss": objective.get("loss", "simple")}), pictures(), device="cpu")
    trainer.advance()
    assert float(trainer.loss_sum) == pytest.approx(float(loss.mean().detach()), rel=1e-5)
    plain.bundle.net.eval()
    plain.advance()
    assert float(plain.loss_sum) != float(trainer.loss_sum)


@pytest.mark.training
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_hybrid_loss_is_finite_in_every_precision(precision: str) -> None:
    trainer = Trainer(wanting({"loss": "hybrid"}, precision=precision), pictures(), device="cpu")
    for _ in range(5):
        trainer.advance()
    trainer.check()
    assert trainer.mean_loss() < 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objective": {"weighting": "min-snrr"}}, "Did you mean min-snr"),
        ({"objective": {"weighting": "min-snr", "settings": {"gamm": 1}}}, "Did you mean gamma"),
        ({"objective": {"times": "score"}}, "Did you mean score-norm"),
        ({"objective": {"loss": "hybrid"}, "process": {"schedule": "vp"}}, "vp has none"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused_before_training(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=said):
        train(build_recipe(change, "the test's recipe"), pictures(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": "hybird"}, "objective.loss = 'hybird'"),
        ({"smallest_time": 0}, "objective.smallest_time = 0"),
        ({"smallest_time": -0.1}, "objective.smallest_time = -0.1"),
        ({"smallest_time": 1}, "objective.smallest_time = 1"),
        ({"vlb_weight": 0}, "objective.vlb_weight = 0"),
        ({"time": "uniform"}, r"objective\.time is not a setting\. Did you mean times\?"),
    ],
)
def test_an_objective_setting_out_of_range_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        build_recipe({"objective": change}, "the test's recipe")


@pytest.mark.slow
@pytest.mark.training
def test_two_processes_draw_from_one_density(tmp_path: Path) -> None:
    """Each writes what it remembers; both remember all samples of both."""
    run_in_two_processes(
        "from test_objectives import wanting\n"
        "from learners import pictures\n"
        "from neblina.training.trainer import Trainer\n"
        "trainer = Trainer(wanting({'times': 'score-norm'}), pictures(), device='cpu')\n"
        "for _ in range(3): trainer.advance()\n"
        "torch.save(trainer.state(), Path(sys.argv[1]) / f'{trainer.process}.pt')\n",
        tmp_path,
        Path(__file__).parent,
    )
    one, other = (torch.load(tmp_path / f"{process}.pt") for process in range(2))
    assert int(one["counts"].sum()) == 3 * 8
    assert all(torch.equal(one[name], other[name]) for name in one)
