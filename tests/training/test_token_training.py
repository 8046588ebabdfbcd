"""Training models of tokens: that they learn, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import neblina
from neblina.bundle.codec import save_codec, weights_digest
from neblina.bundle.files import CARD
from neblina.codecs.levels import Levels
from neblina.codecs.vq import VQCodec
from neblina.core.conditions import Condition
from neblina.core.errors import CheckpointError, DataError, SettingError
from neblina.core.noise import SampleNoise
from neblina.core.plan import conditional
from neblina.data.pictures import InMemory
from neblina.data.tokens import Stacked, read_text
from neblina.denoisers.token_oracles import EnumeratedDenoiser
from neblina.nets.vq_autoencoder import VQAutoencoder, VQConfig
from neblina.objectives.categorical import bound_terms
from neblina.objectives.importance import HISTORY
from neblina.processes.discrete import DiscreteProcess
from neblina.processes.kernels import absorbing, uniform
from neblina.tasks.train import token_figures, train_recipe
from neblina.training.build_tokens import new_token_model, tokens_of
from neblina.training.recipe import Recipe, build_recipe, load_recipe, packaged
from neblina.training.run import Doing
from neblina.training.tokens import TokenLearner, train_tokens


def _recipe(tokens: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    own = {"of": "letters", "length": 8, "kernel": "absorbing", "steps": 10, "layers": 1, "width": 32, "head": 16}
    training = {"images": 64, "batch": 8, "checkpoint_every": 4, "sample_every": 0, "log_every": 2, "ema": 0.9}
    content = {"name": "t", "kind": "tokens", "tokens": {**own, "evaluations": 5, **(tokens or {})}, **sections}
    content["training"] = {**training, **sections.get("training", {})}
    return build_recipe(content, "here")


def _plain(recipe: Recipe, *names: str) -> Recipe:
    """The recipe with these settings of its tokens left out."""
    default = {name: getattr(Recipe().tokens, name) for name in names}
    return recipe.model_copy(update={"tokens": recipe.tokens.model_copy(update=default)})


def _rows(labels: bool = False) -> Stacked:
    rows = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [1, 0, 3, 2, 1, 0, 3, 2]]).repeat(20, 1)
    return Stacked(rows, 4, torch.arange(40) % 2 if labels else None, ("even", "odd") if labels else (), "abcd")


def test_a_text_is_read_as_passages_of_its_letters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcabcabcd" * 10)
    rows, held = read_text(tmp_path / "a.txt", 5, 0.2)
    assert held is not None
    assert rows.alphabet == "abcd"
    assert (len(rows), len(held)) == (76, 16)
    assert rows.read([0, 3]).tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 1]]
    assert "".join(rows.alphabet[one] for one in held.read([15])[0]) == ("abcabcabcd" * 10)[-5:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"aaaaaaaaaaaaaaaa", "one letter over and over"),
        (b"ab", "holds 2 letters"),
        (b"abc\xff\xfe" * 20, r"no text in UTF-8: byte 3 is 0xff"),
    ],
)
def test_a_text_that_teaches_nothing_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / "a.txt", 8)


@pytest.mark.parametrize("kernel", ["absorbing", "uniform", "mask-and-replace", "discretised-gaussian"])
def test_a_model_learns_a_law_and_says_it_in_bits(tmp_path: Path, kernel: str) -> None:
    """Two rows, told apart by their label: nothing is left to say."""
    recipe = _recipe(
        {"kernel": kernel, "settings": {"beta_start": 1e-2, "beta_end": 0.2} if "gauss" in kernel else {}},
        training={"images": 3200, "batch": 32, "label_dropout": 0.1},
        optimizer={"lr": 1e-2, "decay": "linear", "warmup": 5},
    )
    folder = train_tokens(recipe, _rows(labels=True), tmp_path / "run", device="cpu")
    model = neblina.load_tokens(folder, device="cpu")
    measured = model.bundle.card["measured"]
    assert measured["bits"] < 0.15  # of log2(4) = 2
    assert set(model.write(labels=["even", "odd", "even"], seed=1)) == {"abcdabcd", "badcbadc"}
    assert model.write(labels=[1], steps=10, seed=2) == ["badcbadc"]
    assert "bits a letter" in token_figures(folder)


def test_a_unet_learns_levels_of_pixels(tmp_path: Path) -> None:
    """Two pictures of 16 levels: less is left to say, and it opens as what it was."""
    levels = torch.stack([torch.arange(16).reshape(4, 4), torch.arange(16).flip(0).reshape(4, 4)])
    rows = Stacked(levels.repeat(20, 1, 1), 16)
    recipe = _recipe(
        {"of": "levels", "levels": 16, "net": "unet", "says": "logistic", "kernel": "discretised-gaussian"}
        | {"settings": {"beta_start": 1e-3, "beta_end": 0.1}},
        network={"channels": [8, 8], "groups": 4, "blocks": 1, "attention": 0},
        training={"images": 640, "batch": 16},
        optimizer={"lr": 1e-2, "decay": "linear", "warmup": 5},
    )
    recipe = _plain(recipe, "layers", "width", "head")
    folder = train_tokens(recipe, rows, tmp_path / "run", codec=Levels(16), device="cpu")
    model = neblina.load_tokens(folder, device="cpu")
    assert model.bundle.card["measured"]["bits"] < 4  # log2(16); untrained, 6
    assert model.generate(n=2, seed=1).shape == (2, 1, 4, 4)


def test_the_importance_of_steps_is_learned_from_every_row_and_weighs_its_loss() -> None:
    recipe = _recipe(objective={"times": "loss-second-moment"}, training={"batch": 64, "images": 64 * 20})
    learner = TokenLearner(recipe, _rows(), device="cpu")
    importance = learner.importance
    assert importance is not None
    assert importance.bins == 10  # one a step
    while not bool((importance.counts >= HISTORY).all()):
        learner.advance()
    assert int(importance.counts.sum()) == 64 * learner.step
    importance.history *= torch.linspace(5, 1, 10)[:, None]
    share = importance.probabilities()
    seen: list[Any] = []
    learn = importance.learn
    importance.learn = lambda bins, values: (seen.append((bins, values)), learn(bins, values))  # type: ignore[method-assign, assignment, return-value]
    before = learner.sums["loss"]
    learner.advance()
    ((bins, values),) = seen
    wanted = (values / (10 * share[bins])).mean()
    assert learner.sums["loss"] - before == pytest.approx(float(wanted), rel=1e-5)
    assert float((wanted - values.mean()).abs()) > 1e-3


@pytest.mark.parametrize("kernel", [uniform(3), absorbing(3)], ids=["uniform", "absorbing"])
def test_a_few_terms_estimate_the_bound_without_bias(kernel: Any) -> None:
    process = DiscreteProcess(kernel)
    points = torch.tensor([[0, 0], [1, 1], [2, 1]])
    plan = conditional(EnumeratedDenoiser(process, points, torch.tensor([0.5, 0.3, 0.2]).double()), Condition())
    rows = points.repeat(700, 1)
    whole = bound_terms(process, plan, rows, 12, 12, SampleNoise(0, range(len(rows)))).sum(1)
    some = bound_terms(process, plan, rows, 12, 3, SampleNoise(1, range(len(rows)))).sum(1)
    error = math.sqrt(float(whole.var() + some.var()) / len(rows))
    assert float((whole.mean() - some.mean()).abs()) < 4 * error
    assert float(some.var()) > float(whole.var())


def test_levels_are_the_nearest_greys() -> None:
    pictures = torch.tensor([[-1.0, -0.2, 0.2, 1.0]]).reshape(1, 1, 1, 4)
    assert Levels(2).codes(pictures).tolist() == [[[0, 0, 1, 1]]]
    assert Levels(3).codes(pictures).tolist() == [[[0, 1, 1, 2]]]
    every = torch.arange(256).reshape(1, 16, 16)
    assert torch.equal(Levels(256).codes(Levels(256).decode_codes(every)), every)
    with pytest.raises(SettingError, match="2 to 256"):
        Levels(1)


def _pictures(count: int = 12) -> InMemory:
    drawn = torch.Generator().manual_seed(0)
    return InMemory(torch.randint(0, 256, (count, 1, 8, 8), generator=drawn, dtype=torch.uint8))


def test_pixels_and_codes_become_models_of_pictures(tmp_path: Path) -> None:
    recipe = _recipe({"of": "levels", "levels": 2, "kernel": "uniform"}, training={"sample_every": 8})
    codec = Levels(2)
    folder = train_tokens(recipe, tokens_of(_pictures(), codec), tmp_path / "levels", codec=codec, device="cpu")
    made = neblina.load_tokens(folder, device="cpu").generate(n=2, seed=1)
    assert made.shape == (2, 1, 8, 8)
    assert set(made.unique().tolist()) <= {-1.0, 1.0}
    assert (tmp_path / "levels" / "samples" / "step-00000008.png").exists()
    save_codec(_codec(0).net, tmp_path / "codec", {})
    with_codes = {"of": "codes", "codec": str(tmp_path / "codec"), "kernel": "nearest-neighbours"}
    from neblina.training.build_tokens import open_codec

    recipe = _recipe({**with_codes, "settings": {"neighbours": 3}})
    opened = open_codec(recipe)
    rows = tokens_of(_pictures(), opened)
    assert rows.shape == (4, 4)
    assert new_token_model(recipe, rows, opened).shape == (4, 4)


def test_two_stages_are_one_command(tmp_path: Path) -> None:
    from PIL import Image

    for number, picture in enumerate(_pictures(24).pixels):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(picture[0].numpy()).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "codec.yaml").write_text(
        "kind: codec\nnetwork: {channels: [8, 8], attention: 0, blocks: 1, groups: 4, head_dim: 8}\n"
        "codec: {entries: 6, channels: 2}\ntraining: {images: 16, batch: 8, sample_every: 0}\n"
    )
    recipe = _recipe(
        {"of": "codes", "codec_recipe": str(tmp_path / "codec.yaml")},
        data={"source": str(tmp_path / "pictures"), "holdout": 0.25},
    )
    doing: list[Any] = []
    folder = train_recipe(recipe, tmp_path / "run", device="cpu", on_report=lambda report: doing.append(report.doing))
    assert Doing("encoding the pictures", 18, 18) in doing
    assert Doing("measuring the likelihood", 0, 6) in doing
    assert doing.index(Doing("encoding the pictures", 18, 18)) < doing.index(None, 3) < len(doing) - 1
    assert (tmp_path / "run" / "codec" / "model" / "vqvae").is_dir()
    model = neblina.load_tokens(folder, device="cpu")
    assert model.bundle.kernel.classes == 6
    assert model.bundle.card["measured"]["held_out"]
    assert model.generate(n=1).shape == (1, 1, 8, 8)
    other = VQAutoencoder(VQConfig(1, 1, block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=7))
    from neblina.bundle.components import write_component

    (folder / CARD).write_text(json.dumps({**json.loads((folder / CARD).read_text()), "codec_sha256": None}))
    write_component(other, folder / "vqvae")
    with pytest.raises(CheckpointError, match="tokens of 6 classes, and there are 7 codes"):
        neblina.load_tokens(folder)


def _codec(seed: int) -> VQCodec:
    torch.manual_seed(seed)
    halves = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    config = {"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "norm_num_groups": 4, **halves}
    return VQCodec(VQAutoencoder(VQConfig.from_dict({**config, "num_vq_embeddings": 5})).eval())


def test_a_codec_of_the_same_size_that_made_other_codes_is_refused(tmp_path: Path) -> None:
    """On opening a model, on going on with its training, and not where nobody said which codec it was."""
    from neblina.bundle.components import write_component

    codec, other = _codec(0), _codec(1)
    recipe, rows = _recipe({"of": "codes"}), tokens_of(_pictures(), codec)
    folder = train_tokens(recipe, rows, tmp_path / "run", codec=codec, device="cpu")
    mine, theirs = weights_digest(codec.net), weights_digest(other.net)
    assert json.loads((folder / CARD).read_text())["codec_sha256"] == mine
    neblina.load_tokens(folder, device="cpu").save(tmp_path / "again")
    assert neblina.load_tokens(tmp_path / "again", device="cpu").bundle.codec_digest == mine

    write_component(other.net, folder / "vqvae")
    with pytest.raises(
        CheckpointError, match=rf"vqvae holds another codec \({theirs[:12]}\).*\({mine[:12]}\).*put that codec back"
    ):
        neblina.load_tokens(folder)
    with pytest.raises(SettingError, match=rf"the codec that made the tokens: '{mine}' there, '{theirs}' here"):
        train_tokens(recipe, rows, tmp_path / "run", codec=other, resume=True, device="cpu")
    card = json.loads((folder / CARD).read_text())
    del card["codec_sha256"]
    (folder / CARD).write_text(json.dumps(card))
    assert neblina.load_tokens(folder, device="cpu").bundle.codec_digest is None


def test_a_codec_s_digest_is_of_its_weights_and_not_of_how_they_lie() -> None:
    codec = _codec(0).net
    before = weights_digest(codec)
    codec.channels_last()
    assert weights_digest(codec) == before
    with torch.no_grad():
        codec.decoder.conv_out.bias[0] += 1e-6
    assert weights_digest(codec) != before


@pytest.mark.parametrize("name", [name for name in packaged() if load_recipe(name).kind == "tokens"])
def test_every_packaged_recipe_of_tokens_builds_its_model(name: str) -> None:
    recipe = load_recipe(name)
    if recipe.tokens.text is not None:
        return  # tests/training/test_text_tokens.py
    side = recipe.data.resolution if recipe.tokens.of == "levels" else 7
    shape = {"letters": (recipe.tokens.length,)}.get(name, (side, side))
    classes = recipe.tokens.levels if recipe.tokens.of == "levels" else 20
    rows = Stacked(torch.zeros(4, *shape, dtype=torch.int64), classes, torch.arange(4), ("a", "b", "c", "d"))
    codec = Levels(classes) if recipe.tokens.of == "levels" else None
    bundle = new_token_model(recipe, rows, codec)
    assert bundle.null_label == 4


@pytest.mark.parametrize(
    ("tokens", "sections", "message"),
    [
        ({"kernel": "absorbin"}, {}, "absorbing"),
        ({"settings": {"masked": 0.5}}, {}, "does not have these settings"),
        ({"kernel": "mask-and-replace", "settings": {"masked": 1.5}}, {}, "masked = 1.5"),
        ({"evaluations": 11}, {}, "trained on 10 steps"),
        ({"sampler": "ddim"}, {}, "sampler of tokens"),
        ({"kernel": "nearest-neighbours"}, {}, "needs tokens.of: codes"),
        ({"kernel": "discretised-gaussian", "settings": {"steps": 5}}, {}, "make them equal"),
        ({}, {"objective": {"times": "score-norm"}}, "looks at a score, which tokens have not"),
        ({}, {"objective": {"loss": "hybrid"}}, "objective.loss means nothing to a model of tokens"),
        ({}, {"network": {"blocks": 1}}, "network.blocks means nothing to a transformer over tokens"),
        ({"says": "logistic"}, {}, "tokens.says means nothing to a transformer over tokens"),
        ({"net": "unet"}, {}, "tokens.layers, tokens.width, tokens.head mean nothing to a U-Net over levels"),
        ({}, {"process": {"schedule": "linear"}}, "process.schedule means nothing to a model of tokens"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(
    tokens: dict[str, Any], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        TokenLearner(_recipe(tokens, **sections), _rows(), device="cpu")


def test_a_unet_over_what_are_no_levels_is_refused() -> None:
    with pytest.raises(SettingError, match="unet reads levels of pixels as numbers, and letters are none"):
        TokenLearner(_plain(_recipe({"net": "unet"}), "layers", "width", "head"), _rows(), device="cpu")


def test_codes_without_a_codec_are_refused(tmp_path: Path) -> None:
    from neblina.training.build_tokens import open_codec

    with pytest.raises(SettingError, match="needs a codec"):
        open_codec(_recipe({"of": "codes"}))
    with pytest.raises(CheckpointError):
        open_codec(_recipe({"of": "codes", "codec": str(tmp_path / "nowhere")}))
