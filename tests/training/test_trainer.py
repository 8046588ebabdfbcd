"""The loop does what the algorithm says."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learners import pictures, tiny
from processes import run_in_two_processes

from neblina.core.conditions import NULL_LABEL, Condition
from neblina.core.errors import SettingError
from neblina.data.order import batch_numbers
from neblina.data.pictures import InMemory, to_float
from neblina.objectives.simple import compare
from neblina.training.build import new_model
from neblina.training.checkpoint import list_checkpoints, load_checkpoint
from neblina.training.ema import Ema
from neblina.training.examples import draw_examples, read_batch
from neblina.training.journal import read_log
from neblina.training.optimizers import learning_rate
from neblina.training.recipe import Recipe, build_recipe
from neblina.training.run import train
from neblina.training.trainer import LEVELS, Trainer, by_level


def test_every_epoch_sees_every_example_once_in_its_own_order() -> None:
    stream = batch_numbers(3, 10, 0, 30)
    epochs = [stream[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert batch_numbers(3, 10, 7, 9) == stream[7:16]
    assert batch_numbers(4, 10, 0, 10) != stream[:10]
    assert sorted(batch_numbers(3, 3, 0, 8)[3:6]) == [0, 1, 2]  # a batch may be larger than the set


@pytest.mark.training
def test_a_step_is_algorithm_one_by_hand() -> None:
    """Two steps of the trainer against the same arithmetic written out with plain AdamW."""
    recipe = tiny(label_dropout=0.3)
    recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update={"dropout": 0.0})})
    trainer = Trainer(recipe, pictures(), device="cpu")
    model = new_model(recipe, pictures())
    net, denoiser = model.net, model.denoiser()
    net.channels_last()  # the same arithmetic: AdamW's first steps magnify rounding in vanishing gradients
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    average = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for step in range(2):
        seen = trainer.examples(step)
        loss = compare(denoiser, seen.x0, seen.noise, seen.t, Condition(seen.labels)).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step)
        optimizer.step()
        decay = min(0.999, (2 + step) / (11 + step))
        average = {name: decay * average[name] + (1 - decay) * tensor for name, tensor in net.state_dict().items()}
        trainer.advance()
    for name, tensor in net.state_dict().items():
        if "to_k.bias" in name:  # attention does not depend on it: its gradient is rounding, which AdamW magnifies
            continue
        assert torch.allclose(trainer.bundle.net.state_dict()[name], tensor, atol=1e-6), name
        assert torch.allclose(trainer.ema.net.state_dict()[name], average[name], atol=1e-6), name


def test_what_training_sees_follows_the_recipe() -> None:
    trainer = Trainer(tiny(batch=256, label_dropout=0.25), pictures(30), device="cpu")
    seen = trainer.examples(0)
    assert seen.labels is not None
    hidden = float((seen.labels == NULL_LABEL).double().mean())
    assert abs(hidden - 0.25) < 0.1
    clean = to_float(pictures(30).pixels)
    number = batch_numbers(0, 30, 0, 256)
    mirrored = [bool(torch.equal(x, clean[k].flip(-1))) for x, k in zip(seen.x0, number, strict=True)]
    as_is = [bool(torch.equal(x, clean[k])) for x, k in zip(seen.x0, number, strict=True)]
    assert all(one != other for one, other in zip(mirrored, as_is, strict=True))
    assert abs(sum(mirrored) / 256 - 0.5) < 0.1
    assert not torch.equal(trainer.examples(1).t, seen.t)
    assert torch.equal(trainer.examples(0).noise, seen.noise)


def test_the_learning_rate_rises_and_falls_as_the_recipe_says() -> None:
    recipe = tiny()
    rates = [learning_rate(recipe, step) for step in range(recipe.steps)]
    assert rates[0] == pytest.approx(1e-3 / 6)
    assert max(rates) < 1e-3
    assert rates[30] == pytest.approx(1e-3 * (0.5 - 0.5 * math.cos(math.pi * 0.5)))
    assert rates[-1] < 1e-5


def test_dropout_acts_in_training_and_never_in_the_average() -> None:
    recipe = tiny()
    recipe = recipe.model_copy(update={"network": recipe.network.model_copy(update={"dropout": 0.5})})
    trainer = Trainer(recipe, pictures(), device="cpu")
    seen = trainer.examples(0)
    condition = Condition(seen.labels)
    one, other = (trainer.denoiser.predict(seen.x0, seen.t, condition) for _ in range(2))
    assert not torch.equal(one, other)
    average = replace(trainer.denoiser, net=trainer.ema.net)
    one, other = (average.predict(seen.x0, seen.t, condition) for _ in range(2))
    assert torch.equal(one, other)


def test_the_average_of_constant_weights_is_the_weights() -> None:
    net = torch.nn.Linear(2, 2)
    ema = Ema(net, 0.9)
    for step in range(1, 5):
        ema.update(net, step)
    assert torch.allclose(ema.net.weight, net.weight)
    assert not ema.net.weight.requires_grad


@pytest.mark.training
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.slow
def test_every_precision_learns_one_picture(precision: str) -> None:
    recipe = build_recipe(
        {
            "network": {"channels": [16, 32], "groups": 8, "blocks": 1},
            "optimizer": {"lr": 3e-3, "warmup": 10},
            "training": {"images": 150 * 8, "batch": 8, "precision": precision, "ema": 0.9},
        },
        "the test's recipe",
    )
    one = InMemory(
        torch.randint(0, 2, (1, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8) * 255
    )
    trainer = Trainer(recipe, one, device="cpu")
    for _ in range(20):
        trainer.advance()
    early = trainer.mean_loss()
    for _ in range(130):
        trainer.advance()
    trainer.check()
    assert trainer.mean_loss() < 0.5 * early
    assert next(trainer.bundle.net.parameters()).dtype is torch.float32


def test_fp16_scales_its_loss_and_the_scale_is_stored() -> None:
    trainer = Trainer(tiny(precision="fp16"), pictures(), device="cpu")
    trainer.advance()
    assert trainer.scaler.is_enabled()
    assert trainer.progress()["scaler"]["scale"] > 1
    assert not Trainer(tiny(precision="bf16"), pictures(), device="cpu").scaler.is_enabled()


def test_a_perfect_network_has_no_loss_in_training_either() -> None:
    """The target the loss compares with is the one the denoiser reads: a network that knows it loses nothing."""
    trainer = Trainer(tiny(), pictures(), device="cpu")
    seen = trainer.examples(0)
    denoiser = trainer.bundle.denoiser()
    from neblina.denoisers.parameterisations import parameterisations

    target = parameterisations["v"].target(trainer.bundle.schedule, seen.x0, seen.noise, seen.t)

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, time: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return target

    perfect = replace(denoiser, net=Knows())
    assert float(compare(perfect, seen.x0, seen.noise, seen.t, Condition(seen.labels)).loss.max()) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"process": {"schedule": "cosin"}}, "Did you mean cosine"),
        ({"process": {"parameterisation": "epsilon"}}, "Did you mean eps"),
        ({"process": {"clock": "indx"}}, "Did you mean index"),
        ({"process": {"schedule": "vp", "clock": "index"}}, "has none"),
        ({"process": {"settings": {"max_betta": 2}}}, "Did you mean max_beta"),
        ({"process": {"schedule": "flow", "parameterisation": "eps"}}, "eps says nothing about the data at t = 1"),
        ({"process": {"schedule": "flow", "parameterisation": "flow", "clock": "sigma"}}, "clock sigma is infinite"),
        ({"sampling": {"guidance": 2}, "training": {"label_dropout": 0}}, "sampling.guidance 2 needs"),
        ({"sampling": {"sampler": "hen"}}, "Did you mean heun"),
        ({"sampling": {"steps": 2000}}, "2000 steps are more than the 1000"),
        ({"network": {"channels": [30, 64]}}, "30 cannot be split into norm_num_groups"),
        ({"network": {"channels": [32] * 5}}, "8x8 is no multiple of 16"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_training(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=said):
        train(build_recipe(change, "the test's recipe"), pictures(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.training
def test_two_processes_average_their_gradients_into_one_model(tmp_path: Path) -> None:
    """torchrun with two processes, one step, against the mean of both shares' losses written out by hand."""
    run_in_two_processes(
        "from learners import pictures\n"
        "from test_trainer import plain\n"
        "from neblina.training.run import train\n"
        "train(plain(), pictures(), Path(sys.argv[1]) / 'run', device='cpu')\n",
        tmp_path,
        Path(__file__).parent,
    )
    recipe = plain()
    model = new_model(recipe, pictures())
    model.net.channels_last()
    losses = []
    for process in range(2):
        batch = read_batch(recipe, pictures(), 0, process=process, processes=2)
        seen = draw_examples(recipe, model.schedule, 0, batch, process=process)
        losses.append(compare(model.denoiser(), seen.x0, seen.noise, seen.t, Condition(seen.labels)).loss.mean())
    optimizer = torch.optim.AdamW(
        model.net.parameters(), lr=learning_rate(recipe, 0), betas=(0.9, 0.99), weight_decay=0.0
    )
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
    optimizer.step()
    trained = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1]).net
    for name, tensor in model.net.state_dict().items():
        if "to_k.bias" not in name:
            assert torch.allclose(trained[name], tensor, atol=2e-5), name
    assert (tmp_path / "run" / "model" / "neblina.json").exists()


def plain() -> Recipe:
    """One step without dropout."""
    recipe = tiny(images=8)
    return recipe.model_copy(update={"network": recipe.network.model_copy(update={"dropout": 0.0})})


def test_every_level_of_noise_holds_as_many_steps_of_a_discrete_process() -> None:
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    sums, counts = by_level(t, t.float())
    assert counts.tolist() == [200.0] * LEVELS
    assert torch.allclose(sums / counts, torch.tensor([0.1005, 0.3005, 0.5005, 0.7005, 0.9005]))
    assert by_level(torch.zeros(1, dtype=torch.float64), torch.ones(1))[1].tolist() == [1, 0, 0, 0, 0]


@pytest.mark.training
def test_the_loss_by_level_is_a_mean_of_the_loss(tmp_path: Path) -> None:
    train(tiny(log_every=1), pictures(), tmp_path, device="cpu")
    for record in read_log(tmp_path / "log.jsonl"):
        seen = [one for one in record["loss_by_level"] if one is not None]
        assert min(seen) <= record["loss"] * (1 + 1e-5)
        assert max(seen) >= record["loss"] * (1 - 1e-5)
