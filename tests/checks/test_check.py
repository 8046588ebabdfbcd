"""`neblina check`: a healthy model has no problem, a sick one all of its own, and every part can be looked at alone."""

import json
import shutil
from pathlib import Path

import pipelines
import pytest
import torch
from sabotages import SCHEDULER, UNET, VAE, WEIGHTS, edit, weights

from neblina.bundle.components import Opening, write_component
from neblina.cli.check import check as command
from neblina.codecs.kl import KLCodec
from neblina.nets.autoencoder import AutoencoderKL, AutoencoderKLConfig
from neblina.tasks.checks.check import check
from neblina.tasks.checks.findings import PROBLEM
from neblina.tasks.checks.latents import measure, pattern
from neblina.tasks.checks.parts import look_at_parts
from neblina.tasks.checks.published import unusual_fields

OTHERS = {
    "inpainting": pipelines.inpainting,
    "sdxl-inpainting": pipelines.sdxl_inpainting,
    "refiner": pipelines.refiner,
    "upscaler": pipelines.upscaler,
    "dit": pipelines.dit,
    "unconditional-ldm": pipelines.unconditional_ldm,
    "pictures": pipelines.pictures,
}
HEALTHY = {**pipelines.FAMILIES, **OTHERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    pipelines.sd1(place).save_pretrained(place / "sd1")
    return place / "sd1"


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_of_any_family_has_no_problem(name: str, tmp_path: Path) -> None:
    pipeline = HEALTHY[name](tmp_path)
    pipeline.save_pretrained(tmp_path / "model")
    report = check(tmp_path / "model", device="cpu")
    assert report.problems == []
    assert report.facts["kind"] == type(pipeline).__name__
    assert any("no trained network does" in finding.says for finding in report.findings)


def test_everything_that_is_wrong_is_said_at_once(folder: Path, tmp_path: Path) -> None:
    sick = shutil.copytree(folder, tmp_path / "sick")
    edit(UNET, rename=("act_fn", "act_fun"))(sick)
    edit(SCHEDULER, beta_end=2.0)(sick)
    (sick / "vae" / WEIGHTS).write_bytes(b"")
    (sick / "tokenizer" / "vocab.json").unlink(missing_ok=True)
    (sick / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    assert {finding.part for finding in check(sick).problems} >= {"unet", "scheduler", "vae", "tokenizer"}


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_part_is_looked_at_alone(part: str, folder: Path) -> None:
    report = check(folder / part)
    assert report.problems == []
    assert report.findings


@pytest.mark.parametrize("part", ["", "unet", "text_encoder", "tokenizer"])
def test_what_one_stands_in_is_looked_at(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / part)
    here, named = check(".", device="cpu"), check(folder / part, device="cpu")
    assert [(one.level, one.part) for one in here.findings] == [(one.level, one.part) for one in named.findings]
    assert here.problems == []


def test_a_folder_that_is_no_model_is_a_finding_also_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "model_index.json is missing" in check(".", device="cpu").problems[0].says


def test_each_part_of_a_healthy_folder_is_fine_by_itself(folder: Path) -> None:
    found = look_at_parts(folder, Opening())
    assert {finding.part for finding in found} >= {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
    assert not [finding for finding in found if finding.level == PROBLEM]


def test_the_command_tells_a_program_and_exits_with_1_on_a_problem(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(str(folder), as_json=True, device="cpu")
    said = json.loads(capsys.readouterr().out)
    assert said["sound"]
    assert said["facts"]["parts"]["text_encoder"] == "CLIPTextModel"
    with pytest.raises(SystemExit) as stop:
        command(str(tmp_path / "nothing"), device="cpu")
    assert stop.value.code == 1
    assert "is not there" in capsys.readouterr().out


SD = {"_class_name": "UNet2DConditionModel", "block_out_channels": (320, 640, 1280, 1280)}


@pytest.mark.parametrize(
    ("text", "heads", "usual"),
    [(768, 8, True), (768, 4, False), (1024, (5, 10, 20, 20), True), (1024, 8, True), (1024, 4, False)],
)
def test_the_heads_of_published_widths_are_known(text: int, heads: object, usual: bool) -> None:
    assert (unusual_fields({**SD, "cross_attention_dim": text, "attention_head_dim": heads}) == []) == usual


def test_an_activation_of_a_published_width_is_known() -> None:
    clip = {"architectures": ["CLIPTextModel"], "hidden_size": 768, "num_attention_heads": 12}
    assert unusual_fields({**clip, "hidden_act": "quick_gelu"}) == []
    assert "quick_gelu" in unusual_fields({**clip, "hidden_act": "gelu"})[0]


def test_values_beyond_float16_inside_an_autoencoder_are_seen_in_float32(folder: Path, tmp_path: Path) -> None:
    sick = shutil.copytree(folder, tmp_path / "sick")

    def louder(state: dict[str, torch.Tensor]) -> None:
        state["decoder.conv_in.weight"] = state["decoder.conv_in.weight"] * 1e6

    weights("vae", louder)(sick)
    edit(VAE, force_upcast=False)(sick)
    said = [finding.says for finding in check(sick, device="cpu").findings]
    assert any("decode in float32 or bfloat16" in one for one in said)


@pytest.mark.slow
@pytest.mark.training
def test_the_scale_of_a_trained_autoencoder_is_measured(folder: Path, tmp_path: Path) -> None:
    """Ten times off, the factor that is proposed is the one it was saved with."""
    torch.manual_seed(0)
    halves = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    config = {"block_out_channels": (16, 16), "norm_num_groups": 4, "mid_block_add_attention": False, **halves}
    net = AutoencoderKL(AutoencoderKLConfig(**config, scaling_factor=1.0))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(150):
        pictures = torch.cat([pattern(3, 16, 100 + 8 * step + number) for number in range(8)])
        mean, _ = net.encode(pictures).chunk(2, dim=1)
        loss = (net.decode(mean) - pictures).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    coding = measure(KLCodec(net.eval()))
    assert coding.trained
    fitting = 1 / coding.std

    for factor, sound in ((1.0, True), (10.0, False), (0.1, False)):
        model = shutil.copytree(folder, tmp_path / f"{factor}")
        shutil.rmtree(model / "vae")
        write_component(net, model / "vae")
        edit(VAE, scaling_factor=fitting * factor)(model)
        problems = [finding.says for finding in check(model, device="cpu").problems]
        assert (problems == []) == sound
        assert all(f"about {fitting:.3g} would fit" in one for one in problems)
