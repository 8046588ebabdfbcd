"""What a user asks of a model: the same picture whatever the batch, and clear refusals."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import small_bundle

import neblina
from neblina.core.errors import Cancelled, CheckpointError, SettingError
from neblina.samplers import samplers
from neblina.tasks.making import Order, in_portions
from neblina.tasks.model import Model
from neblina.tasks.settings import LeftOut

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Model:
    return Model(small_bundle(classes=3, schedule="cosine", parameterisation="v"), CPU)


@pytest.mark.parametrize("sampler", [name for name in samplers if name != "repaint"])  # test_verbs: it wants a mask
def test_picture_k_is_the_same_picture_whatever_the_batch(sampler: str) -> None:
    """To rounding; to its tolerance where a sampler accepts and rejects steps by what it is told."""
    learned = samplers[sampler].learned_variance
    model = Model(small_bundle(classes=3, schedule="cosine", parameterisation="v", learned_variance=learned), CPU)
    adaptive = samplers[sampler].adaptive
    own, close = ({"tolerance": 0.005}, 0.01) if adaptive else ({}, 1e-4)
    steps = None if adaptive else 4

    def made(**numbers: int) -> torch.Tensor:
        return model.generate(
            labels=[0, 1, 2], seed=9, sampler=sampler, steps=steps, guidance=2.0, settings=own, **numbers
        )

    at_once = made(n=5, batch=5)
    for batch in (1, 3):
        assert torch.allclose(made(n=5, batch=batch), at_once, atol=close)
    in_two = torch.cat([made(n=2), made(n=2, offset=2)])
    assert torch.allclose(in_two, at_once[:4], atol=close)


def test_another_seed_or_label_is_another_picture(model: Model) -> None:
    one = model.generate(labels=0, seed=1)
    assert not torch.allclose(one, model.generate(labels=0, seed=2), atol=1e-3)
    assert not torch.allclose(one, model.generate(labels=1, seed=1), atol=1e-3)


def test_labels_repeat_in_turn_and_go_by_name_or_number(model: Model) -> None:
    named = Model(replace(model.bundle, label_names=("cat", "dog", "7")), CPU)
    by_number = named.generate(labels=[0, 1, 2], n=5)
    assert torch.equal(named.generate(labels=["cat", "dog", "7"], n=5), by_number)
    assert torch.allclose(named.generate(labels=[0, 1], seed=0), by_number[:2], atol=1e-5)
    assert torch.allclose(named.generate(labels=["cat"], n=2, offset=3)[0], by_number[3], atol=1e-5)


def test_labels_that_no_picture_is_made_of_are_said(model: Model) -> None:
    with pytest.warns(LeftOut, match="3 prompts or labels are given and n is 2: the last 1 of them"):
        assert len(model.generate(labels=[0, 1, 2], n=2, steps=2)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate(labels=[0, 1, 2], n=2, offset=2, steps=2)
        model.generate(labels=[0, 1], n=2, steps=2)
        list(in_portions(Order("generate", "model", {"labels": [0, 1, 2] * 3, "batch": 1, "steps": 2}), model))
    with pytest.warns(LeftOut, match="the last 3 of them") as said:
        list(in_portions(Order("generate", "model", {"labels": [0, 1, 2] * 3, "n": 6, "batch": 1, "steps": 2}), model))
    assert len(said) == 1


def test_without_labels_the_model_goes_by_its_null(model: Model) -> None:
    assert model.generate(n=2).shape == (2, 3, 8, 8)
    never = Model(small_bundle(classes=3, null=False), CPU)
    with pytest.raises(SettingError, match="never learned to go without a label"):
        never.generate(n=2)
    with pytest.raises(SettingError, match="never learned to go without a label"):
        never.generate(labels=0, guidance=2.0)
    assert never.generate(labels=0).shape == (1, 3, 8, 8)


def test_saved_and_loaded_it_makes_the_same_pictures(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = neblina.load(tmp_path / "model", device="cpu")
    one, other = (which.generate(labels=[1], n=2, seed=3) for which in (loaded, model))
    assert torch.allclose(one, other, atol=1e-5)  # a loaded network is laid out for speed


def test_half_precision_makes_nearly_the_same_pictures(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    half = neblina.load(tmp_path / "model", device="cpu", dtype="bf16")
    assert next(half.bundle.net.parameters()).dtype is torch.bfloat16
    made = half.generate(labels=[1], n=4, steps=5, seed=3)
    assert made.dtype is torch.float32
    whole = model.generate(labels=[1], n=4, steps=5, seed=3)
    assert float((made - whole).abs().mean()) < 0.02 * float(whole.abs().mean())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"steps": 1001}, "1001 steps are more than the 1000"),
        ({"sampler": "dpmpp2m"}, "Did you mean dpmpp_2m"),
        ({"grid": "karas"}, "Did you mean karras"),
        ({"labels": 3}, "label 3 is out of range: this model knows 0 … 2"),
        ({"labels": [-2]}, "label -2 is out of range"),
        ({"labels": "cat"}, "'cat' is not a label"),
        ({"labels": []}, "labels is empty"),
        ({"n": 0}, "at least 1"),
        ({"settings": {"churn": 1.0}}, "is not a setting of dpmpp_2m"),
        ({"sampler": "ddpm_learned"}, "needs a model that learned its variance"),
        ({"t_start": 0.5}, "give some to start from"),
        ({"t_start": 0.2, "t_end": 0.4}, "0.2 to 0.4"),
        ({"start": torch.zeros(3, 4, 4)}, "pictures to start from are 1 or 1 of shape"),
        ({"schedule": "cosin"}, "Did you mean cosine"),
        ({"long_prompt": "bogus"}, "'bogus' is not a way with long prompts"),
        ({"long_prompt": "chunk"}, "long_prompt 'chunk' is about prompts, and this model reads no text"),
        ({"clip_skip": 1}, "this model reads no text"),
        ({"clip_skip": 0}, "this model reads no text"),
        ({"seed": "x"}, "seed is a whole number, not 'x'"),
        ({"seed": 1.5}, r"seed is a whole number, not 1\.5"),
        ({"n": "x"}, "n is a whole number"),
        ({"n": True}, "n is a whole number, not True"),
        ({"guidance": "x"}, "guidance is a number, not 'x'"),
        ({"settings": [1]}, "settings is values by name"),
        ({"autoguidance": "folder"}, "autoguidance is a Model, not 'folder'"),
        ({"size": (16.0, 16.0)}, "size is 2 whole numbers"),
        ({"prompt": [None]}, "prompt is a text or a list of texts"),
        ({"labels": [1.5]}, "labels is a whole number or a text or a list of whole numbers and texts"),
        ({"t_start": "1"}, "t_start is a number"),
        (
            {"size": (100_000, 100_000)},
            r"100000x100000 is 10000\.000 million pixels, .* at most 4\.194 million, such as 2048x2048",
        ),
        ({"sampler": "euler_maruyama", "schedule": "flow"}, "integrates the reverse SDE"),
        ({"sampler": "adaptive", "steps": 5}, "chooses its own steps"),
        ({"sampler": "adaptive", "settings": {"tolerance": 0}}, "tolerance 0 is not positive"),
        ({"sampler": "ddim", "settings": {"eta": 1.5}}, "eta lies between 0"),
    ],
)
def test_a_wrong_request_is_refused_with_the_fix(model: Model, settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        model.generate(**{"labels": 0, **settings})  # type: ignore[arg-type]


def test_guidance_and_labels_on_an_unconditional_model_are_refused() -> None:
    model = Model(small_bundle(), CPU)
    assert model.generate(n=1).shape == (1, 3, 8, 8)
    with pytest.raises(SettingError, match="guidance 2 needs a model with a condition"):
        model.generate(n=1, guidance=2.0)
    with pytest.raises(SettingError, match="unconditional"):
        model.generate(labels=1)


def test_omega_is_the_papers_name_for_guidance_less_one(model: Model) -> None:
    assert torch.equal(model.generate(labels=1, omega=1.5), model.generate(labels=1, guidance=2.5))
    with pytest.raises(SettingError, match=r"w = 1 \+ ω; give one"):
        model.generate(labels=1, omega=1.5, guidance=2.5)


def test_another_model_can_be_the_unconditional_branch(model: Model) -> None:
    other = Model(small_bundle(schedule="cosine", parameterisation="eps", seed=5), CPU)
    guided = model.generate(labels=1, guidance=2.0, unconditional=other)
    assert not torch.allclose(guided, model.generate(labels=1, guidance=2.0), atol=1e-3)
    never = Model(small_bundle(classes=3, null=False, schedule="cosine"), CPU)
    assert never.generate(labels=0, guidance=2.0, unconditional=other).shape == (1, 3, 8, 8)
    with pytest.raises(SettingError, match="another process"):
        model.generate(labels=1, guidance=2.0, unconditional=Model(small_bundle(), CPU))
    with pytest.raises(SettingError, match="conditioned on labels"):
        model.generate(labels=1, guidance=2.0, unconditional=model)


def test_cancelling_raises() -> None:
    with pytest.raises(Cancelled):
        Model(small_bundle(), CPU).generate(n=1, cancelled=lambda: True)


def test_wrong_places_and_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        neblina.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="is missing"):
        neblina.load(tmp_path)
    with pytest.raises(SettingError, match="Did you mean fp16"):
        neblina.load(tmp_path, dtype="f16")
    with pytest.raises(SettingError, match="device 'cuda:99' cannot be used here"):
        neblina.load(tmp_path, device="cuda:99")


def test_what_it_says_of_itself(model: Model) -> None:
    facts = model.describe()
    assert facts["pictures"] == "3x8x8"
    assert facts["process"] == {"schedule": "cosine", "steps": 1000, "zero_snr": False, "max_beta": 0.999}
    assert facts["labels"] == ["0", "1", "2"]


def test_a_walk_that_starts_late_stays_close_to_its_picture_and_one_from_noise_forgets_it(model: Model) -> None:
    start = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def gap(t_start: float) -> float:
        made = model.generate(labels=0, n=2, start=start, t_start=t_start, steps=30)
        return float((made - start).square().mean().sqrt())

    assert gap(0.02) < 0.1
    assert gap(0.02) < gap(0.3) < gap(1.0)


def test_a_walk_that_ends_early_asks_about_nothing_cleaner(model: Model) -> None:
    asked: list[float] = []
    stopped = model.generate(labels=0, t_end=0.4, steps=9, on_step=lambda step: asked.append(float(step.query.t.min())))
    assert min(asked) > 0.4
    assert max(asked) == 1
    clean = model.generate(labels=0, steps=9)
    assert float(stopped.std()) > float(clean.std()) / 10
    assert not torch.allclose(stopped, clean, atol=0.01)


def test_another_schedule_at_sampling_time_leads_to_the_same_pictures(model: Model) -> None:
    """Over the same noise levels, deterministic walks end alike."""
    own = model.generate(labels=[0, 1], sampler="dpmpp_2m", steps=60)
    other = model.generate(labels=[0, 1], sampler="dpmpp_2m", steps=60, schedule="vp")
    assert float((own - other).abs().mean()) < 0.02 * float(own.abs().mean()) + 0.02
