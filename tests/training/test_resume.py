"""Nothing is lost: a run killed anywhere and resumed ends bit for bit where an uninterrupted one does."""

import json
import multiprocessing
import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import KINDS, digest, pictures, run_in_a_process, tiny
from processes import run_in_two_processes
from safetensors import SafetensorError

from neblina.core.errors import CheckpointError, DivergenceError, Interrupted, SettingError, StorageError
from neblina.data.pictures import InMemory
from neblina.training.checkpoint import list_checkpoints, load_checkpoint, newest_checkpoint
from neblina.training.journal import read_log
from neblina.training.recipe import Objective, Recipe
from neblina.training.run import Report, train
from neblina.training.trainer import Trainer


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        *(("denoiser", variant) for variant in ("fp32", "bf16", "fp16", "importance sampling and snapshots")),
        ("text", "fp32"),
        ("tokens", "fp32"),
        ("tokens of text", "fp32"),
        ("codec", "fp32"),
    ],
)
def test_killed_ten_times_and_resumed_it_ends_with_the_same_bits(kind: str, variant: str, tmp_path: Path) -> None:
    if variant.startswith("importance"):
        recipe = tiny(images=240 * 8, snapshots_every=30)
        recipe = recipe.model_copy(update={"objective": Objective(times="score-norm", loss="hybrid")})
    else:
        recipe = KINDS[kind].recipe(precision=variant, images=240 * 8)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neblina.training.tokens", "neblina.training.codec", "neblina.training.text"])

    def start(folder: Path) -> Any:
        process = context.Process(target=run_in_a_process, args=(kind, recipe, folder))
        process.start()
        return process

    undisturbed = tmp_path / "undisturbed"
    process = start(undisturbed)
    process.join()
    assert process.exitcode == 0

    chance = random.Random(3)
    killed = tmp_path / "killed"
    points: list[int] = []
    for attempt in range(40):
        before = list_checkpoints(killed / "checkpoints")
        process = start(killed)
        while process.is_alive() and list_checkpoints(killed / "checkpoints") == before:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))  # anywhere in a step, a log line or a checkpoint
        process.kill()
        process.join()
        if process.exitcode == 0:  # it got through before the kill: begin again, the count goes on
            assert digest(killed) == digest(undisturbed)
            killed = tmp_path / f"killed-{attempt}"
            continue
        assert process.exitcode == -signal.SIGKILL
        points.append(int(list_checkpoints(killed / "checkpoints")[-1].name.removeprefix("step-")))
        if len(points) == 12:
            break
    assert len(points) == 12
    assert len(set(points)) >= 6, points
    process = start(killed)
    process.join()
    assert process.exitcode == 0
    assert digest(killed) == digest(undisturbed)


@pytest.mark.training
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["text after a draft", "text by a trained encoder"])
def test_killed_once_and_resumed_it_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    """Kinds that are not killed ten times above, anywhere between the checkpoints and log lines of a run."""
    recipe, run = KINDS[kind].recipe(images=30 * 8), KINDS[kind].run
    run(recipe, tmp_path / "undisturbed")
    context = multiprocessing.get_context("fork")  # the others import for seconds; the child has one thread of its own
    killed = tmp_path / "killed"
    process = context.Process(target=run_in_a_process, args=(kind, recipe, killed))
    process.start()
    while process.is_alive() and not list_checkpoints(killed / "checkpoints"):
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 4 <= int(list_checkpoints(killed / "checkpoints")[-1].name.removeprefix("step-")) < 30
    run(recipe, killed, resume=True)
    assert digest(killed) == digest(tmp_path / "undisturbed")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the process that is killed: sums of many threads round elsewhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.training
def test_a_checkpoint_killed_while_it_is_written_is_never_loaded(tmp_path: Path, monkeypatch: Any) -> None:
    """Death at every file of the second checkpoint: the first one is found, whole."""
    from neblina.training import checkpoint as module

    class Death(BaseException):
        pass

    real = module.save_tensors
    for fatal in (4, 5, 6):  # the files of the second checkpoint: three safetensors each
        calls: list[int] = []

        def deadly(*arguments: Any, fatal: int = fatal, calls: list[int] = calls) -> None:
            calls.append(1)
            real(*arguments)
            if len(calls) == fatal:
                raise Death

        folder = tmp_path / str(fatal)
        monkeypatch.setattr(module, "save_tensors", deadly)
        with pytest.raises(Death):
            train(tiny(), pictures(), folder, device="cpu")
        found, _ = newest_checkpoint(folder / "checkpoints")
        assert found is not None
        assert found.step == 4


@pytest.mark.training
@pytest.mark.parametrize("harm", ["cut", "flip", "lose", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(harm: str, tmp_path: Path) -> None:
    recipe = tiny(images=12 * 8)
    train(recipe, pictures(), tmp_path, device="cpu")
    *_, before, last = list_checkpoints(tmp_path / "checkpoints")
    weights = last / "net.safetensors"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif harm == "flip":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
    elif harm == "lose":
        weights.unlink()
    else:
        (last / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"damaged|incomplete"):
        load_checkpoint(last)
    found, passed = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == int(before.name.removeprefix("step-"))
    assert str(last) in passed[0]
    notes: list[str] = []
    train(
        recipe,
        pictures(),
        tmp_path,
        resume=True,
        device="cpu",
        on_report=lambda report: notes.append(report.note) if report.note else None,
    )
    assert any("going on from the one before" in note for note in notes)


@pytest.mark.training
@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(kind: str, tmp_path: Path) -> None:
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    recipe, run = KINDS[kind].recipe(images=20 * 8), KINDS[kind].run
    run(recipe, undisturbed)

    def press(report: Report) -> None:
        if report.step == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"stopped after step 7 of 20.*--resume"):
        run(recipe, stopped, on_report=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(SettingError, match=r"holds a run already\. Pass --resume"):
        run(recipe, stopped)
    run(recipe, stopped, resume=True)
    assert digest(stopped) == digest(undisturbed)


@pytest.mark.training
@pytest.mark.parametrize("kind", ["denoiser", "text", "tokens", "codec"])
def test_resuming_with_a_changed_recipe_names_every_changed_field(kind: str, tmp_path: Path) -> None:
    recipe, run = KINDS[kind].recipe, KINDS[kind].run
    run(recipe(images=8 * 8), tmp_path)
    changed = recipe(images=8 * 8, ema=0.5).model_copy(update={"optimizer": Recipe().optimizer})
    with pytest.raises(SettingError) as refusal:
        run(changed, tmp_path, resume=True)
    for field in (
        "training.ema: 0.999 there, 0.5 here",
        "optimizer.decay: 'cosine' there",
        "optimizer.warmup: 5 there",
    ):
        assert field in str(refusal.value)


@pytest.mark.training
@pytest.mark.parametrize("end", [20, 6])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    end: int, tmp_path: Path, monkeypatch: Any
) -> None:
    """Weights go bad in step 6: after the checkpoint of step 4, before a log line, or in the very last step."""
    advance = Trainer.advance

    def poisoned(self: Trainer) -> None:
        if self.step == 5:
            self.bundle.net.conv_in.weight.data[0, 0, 0, 0] = torch.nan
        advance(self)

    monkeypatch.setattr(Trainer, "advance", poisoned)
    with pytest.raises(DivergenceError, match=r"not finite at step 6\. Lower optimizer\.lr \(0\.001\)"):
        train(tiny(images=end * 8), pictures(), tmp_path, device="cpu")
    found, _ = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 4
    assert all(bool(tensor.isfinite().all()) for tensor in found.net.values())
    assert not (tmp_path / "model").exists()


@pytest.mark.training
def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is_fine() -> None:
    trainer = Trainer(tiny(), pictures(), device="cpu")
    trainer.bundle.net.conv_in.weight.register_hook(lambda gradient: gradient * torch.inf)
    trainer.advance()
    assert bool(trainer.loss_sum.isfinite())
    with pytest.raises(DivergenceError, match="gradient was not finite at step 1"):
        trainer.check()


@pytest.mark.training
def test_the_step_of_a_bad_loss_is_named_exactly(tmp_path: Path) -> None:
    trainer = Trainer(tiny(), pictures(), device="cpu")
    for _ in range(3):
        trainer.advance()
    trainer.check()
    trainer.bundle.net.conv_in.weight.data.fill_(torch.nan)
    for _ in range(3):
        trainer.advance()
    with pytest.raises(DivergenceError, match="at step 4"):
        trainer.check()


def run_with_little_room(folder: Path, room: int, outcome: Any) -> None:
    """Train where no file may grow beyond `room` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    torch.set_num_threads(1)

    def shrink(report: Report) -> None:
        if report.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    try:
        train(tiny(), pictures(), folder, device="cpu", on_report=shrink)
    except StorageError as error:
        outcome.put(str(error))


@pytest.mark.training
@pytest.mark.parametrize("room", [500, 30_000])
def test_a_disk_that_refuses_leaves_the_old_checkpoint(room: int, tmp_path: Path) -> None:
    """The system itself refuses to write: in a log line, or in the middle of the weights."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["neblina.training.run"])
    outcome = context.Queue()
    process = context.Process(target=run_with_little_room, args=(tmp_path, room, outcome))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert "could not be written" in outcome.get(timeout=5)
    found, passed = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 4
    assert not passed
    assert [place.name for place in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


@pytest.mark.training
def test_a_full_disk_is_called_so(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*arguments: Any, **settings: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("neblina.core.tensors.save_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        train(tiny(), pictures(), tmp_path, device="cpu")


@pytest.mark.training
def test_resuming_on_other_pictures_is_refused(tmp_path: Path) -> None:
    train(tiny(images=8 * 8), pictures(30), tmp_path, device="cpu")
    with pytest.raises(SettingError, match="pictures: 30 there, 29 here"):
        train(tiny(images=8 * 8), pictures(29), tmp_path, resume=True, device="cpu")
    other = pictures(30)
    renamed = InMemory(other.pixels, other.labels, ("a", "b", "z"))
    with pytest.raises(SettingError, match=r"classes: \['a', 'b', 'c'\] there.*choose another folder with --out"):
        train(tiny(images=8 * 8), renamed, tmp_path, resume=True, device="cpu")


def stopped_and_resumed(folder: Path) -> None:
    """A whole run, and one that the main process stops at step 10, in the middle of a log line, and resumes."""

    def press(report: Report) -> None:
        if report.step == 8:
            signal.raise_signal(signal.SIGINT)

    recipe = tiny(images=20 * 8, checkpoint_every=10)
    train(recipe, pictures(), folder / "whole", device="cpu")
    with pytest.raises(Interrupted):
        train(recipe, pictures(), folder / "parts", device="cpu", on_report=press)
    train(recipe, pictures(), folder / "parts", resume=True, device="cpu")


@pytest.mark.slow
@pytest.mark.training
def test_two_processes_that_stop_and_go_on_log_the_loss_of_both(tmp_path: Path) -> None:
    run_in_two_processes(
        f"from {Path(__file__).stem} import stopped_and_resumed\nstopped_and_resumed(Path(sys.argv[1]))\n",
        tmp_path,
        Path(__file__).parent,
    )
    assert [record["step"] for record in read_log(tmp_path / "whole" / "log.jsonl")] == [7, 14, 20]
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


@pytest.mark.training
def test_when_no_checkpoint_is_whole_nothing_is_begun_again_in_silence(tmp_path: Path) -> None:
    train(tiny(images=8 * 8), pictures(), tmp_path, device="cpu")
    for place in list_checkpoints(tmp_path / "checkpoints"):
        (place / "net.safetensors").unlink()
    log = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        train(tiny(images=8 * 8), pictures(), tmp_path, resume=True, device="cpu")
    assert (tmp_path / "log.jsonl").read_bytes() == log


@pytest.mark.training
def test_old_checkpoints_are_removed_and_the_log_tells_of_every_interval(tmp_path: Path) -> None:
    train(tiny(images=22 * 8, keep=3), pictures(), tmp_path, device="cpu")
    assert [place.name for place in list_checkpoints(tmp_path / "checkpoints")] == [
        "step-00000016",
        "step-00000020",
        "step-00000022",
    ]
    records = read_log(tmp_path / "log.jsonl")
    assert [record["step"] for record in records] == [7, 14, 21, 22]
    assert all(record["images"] == 8 * record["step"] for record in records)
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [record["step"] for record in timing] == [7, 14, 21, 22]


def test_half_a_line_at_the_end_of_a_log_is_not_a_record(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}, {"step": 2}]
