"""Train a recipe, a denoiser, a classifier, a codec or a model of tokens: open its pictures, train, plot the loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from neblina.bundle.codec import wrapped
from neblina.bundle.files import CARD, read_json
from neblina.codecs.kl import KLCodec
from neblina.core.errors import SettingError
from neblina.core.launch import is_main_process
from neblina.data.captions import called, captions_of, uncaptioned
from neblina.data.files import OnRead
from neblina.data.holding import repeated
from neblina.data.pictures import Pictures, Subset
from neblina.data.sources import open_pictures
from neblina.data.tokens import read_text
from neblina.tasks.plots import plot_loss
from neblina.training.build_codec import new_autoencoder
from neblina.training.build_text import open_latents
from neblina.training.build_tokens import open_codec, tokens_of
from neblina.training.classifier import train_classifier
from neblina.training.codec import train_codec
from neblina.training.examples import divided
from neblina.training.frozen import Reader, open_reader
from neblina.training.journal import read_log
from neblina.training.recipe import Recipe, build_recipe, differences, load_recipe
from neblina.training.run import Doing, OnReport, Report, train
from neblina.training.text import check_text, train_text
from neblina.training.text_tokens import train_text_tokens
from neblina.training.tokens import train_tokens


def train_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    skip_bad: bool = False,
    on_read: OnRead | None = None,
    on_report: OnReport | None = None,
) -> Path:
    """Train, and return the model's folder; arguments and errors of `neblina.training.run.train`.

    Raises:
        DataError: pictures that cannot be used, before anything is trained.
    """
    reader = _reader(recipe)
    if recipe.kind == "tokens" and recipe.tokens.of == "letters":
        return _train_letters(recipe, folder, resume=resume, device=device, on_report=on_report)
    section = _staged(recipe)
    pictures, bad = open_recipe_pictures(recipe, skip_bad=skip_bad, on_read=on_read)
    for sentence in bad:
        _tell(on_report, recipe, f"{sentence} Left out.")
    if _reads(recipe):
        pictures = _captioned(pictures, recipe, skip_bad=skip_bad, on_report=on_report)
    training, held = divided(recipe, pictures)
    if section is not None and getattr(recipe, section).codec is None:
        recipe = _with_codec(
            recipe, section, training, held, folder, reader, resume=resume, device=device, on_report=on_report
        )
    return _train_on(recipe, training, held, folder, reader, resume=resume, device=device, on_report=on_report)


def _train_on(
    recipe: Recipe,
    training: Pictures,
    held: Pictures,
    folder: Path,
    reader: Reader | None = None,
    *,
    resume: bool,
    device: str | None,
    on_report: OnReport | None,
) -> Path:
    """Train one stage, with its codec and the reader of its captions where it stands on them."""
    trained: dict[str, Callable[..., Path]] = {
        "denoiser": partial(_train_latents, reader=reader) if _reads(recipe) else train,
        "classifier": train_classifier,
        "codec": partial(train_codec, held=held),
        "tokens": partial(_train_codes, held=held, reader=reader),
    }
    model = trained[recipe.kind](recipe, training, folder, resume=resume, device=device, on_report=on_report)
    if is_main_process():
        plot_loss(read_log(folder / "log.jsonl"), folder / "loss.png")
    return model


def _staged(recipe: Recipe) -> str | None:
    """The section of a recipe that says which codec it stands on, None for one that stands on none.

    Raises:
        SettingError: a codec without a text, or a text without a codec.
    """
    if recipe.kind == "tokens":
        return "tokens" if recipe.tokens.of == "codes" else None
    latents = recipe.latents.codec is not None or recipe.latents.codec_recipe is not None
    text = recipe.text.layers > 0 or recipe.text.encoder is not None
    if recipe.kind != "denoiser" or latents != text:
        if latents or text:
            raise SettingError(
                "a denoiser of latents (latents.codec or latents.codec_recipe) is trained with a text encoder "
                "(text.layers > 0, or text.encoder), and only such a one: give both or neither"
            )
        return None
    return "latents" if latents else None


def _reads(recipe: Recipe) -> bool:
    """Whether what is trained reads captions."""
    latents = recipe.latents.codec is not None or recipe.latents.codec_recipe is not None
    return recipe.tokens.text is not None or (recipe.kind == "denoiser" and latents)


def _reader(recipe: Recipe) -> Reader | None:
    """The text encoder that a recipe takes from another model, None where it takes none.

    Raises:
        SettingError: a model without one, or a recipe that has no use for one.
        CheckpointError: it cannot be read.
    """
    if recipe.tokens.text is not None and (recipe.kind != "tokens" or recipe.tokens.of != "codes"):
        raise SettingError("tokens.text is for models of codes (kind: tokens, tokens.of: codes): leave it out")
    place = recipe.tokens.text if recipe.kind == "tokens" else recipe.text.encoder
    return None if place is None else open_reader(place)


def _captioned(pictures: Pictures, recipe: Recipe, *, skip_bad: bool, on_report: OnReport | None) -> Pictures:
    """The pictures that have a caption: all of them, unless those without are to be left out.

    Raises:
        DataError: some have none, and they are not to be left out; or all of them.
    """
    missing = frozenset(uncaptioned(pictures.records or ()))
    if missing and skip_bad and len(missing) < len(pictures):
        named = called(pictures.records or (), sorted(missing))
        _tell(on_report, recipe, f"Pictures without a caption are left out, {len(missing):,} of them: {named}.")
        pictures = Subset(pictures, tuple(number for number in range(len(pictures)) if number not in missing))
    captions = captions_of(pictures)
    twins = repeated(pictures, [caption.name for caption in captions])
    if twins:
        first = " and ".join(repr(name) for name in twins[0])
        _tell(
            on_report,
            recipe,
            f"Pictures are there several times under different captions, {len(twins):,} of them: {first}"
            f"{', …' if len(twins) > 1 else ''}. They are trained on under each.",
        )
    return pictures


def _tell(on_report: OnReport | None, recipe: Recipe, sentence: str) -> None:
    if on_report is not None:
        on_report(Report(0, recipe.steps, 0, note=sentence))


def _encoding(on_report: OnReport | None, recipe: Recipe) -> OnRead:
    """What is told how many pictures are encoded."""

    def tell(done: int, count: int) -> None:
        if on_report is not None:
            on_report(Report(0, recipe.steps, 0, doing=Doing("encoding the pictures", done, count)))

    return tell


def _train_latents(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    reader: Reader | None,
    resume: bool,
    device: str | None,
    on_report: OnReport | None,
) -> Path:
    codec = open_latents(recipe)
    return train_text(
        recipe,
        pictures,
        folder,
        codec=codec,
        reader=reader,
        resume=resume,
        device=device,
        on_read=_encoding(on_report, recipe),
        on_report=on_report,
    )


def _train_letters(
    recipe: Recipe, folder: Path, *, resume: bool, device: str | None, on_report: OnReport | None
) -> Path:
    rows, held = read_text(recipe.data.source, recipe.tokens.length, recipe.data.holdout)
    model = train_tokens(recipe, rows, folder, held=held, resume=resume, device=device, on_report=on_report)
    plot_loss(read_log(folder / "log.jsonl"), folder / "loss.png")
    return model


def _train_codes(
    recipe: Recipe,
    pictures: Pictures,
    folder: Path,
    *,
    held: Pictures,
    reader: Reader | None,
    resume: bool,
    device: str | None,
    on_report: OnReport | None,
) -> Path:
    codec = open_codec(recipe)
    rows = tokens_of(pictures, codec, _encoding(on_report, recipe))
    kept = tokens_of(held, codec) if len(held) else None
    if reader is not None:
        return train_text_tokens(
            recipe,
            pictures,
            rows,
            folder,
            codec=codec,
            reader=reader,
            held=None if kept is None else (held, kept),
            resume=resume,
            device=device,
            on_report=on_report,
        )
    return train_tokens(recipe, rows, folder, codec=codec, held=kept, resume=resume, device=device, on_report=on_report)


def _with_codec(
    recipe: Recipe,
    section: str,
    training: Pictures,
    held: Pictures,
    folder: Path,
    reader: Reader | None,
    *,
    resume: bool,
    device: str | None,
    on_report: OnReport | None,
) -> Recipe:
    """The recipe with the codec of its first stage, which is trained where it is not there yet.

    Raises:
        SettingError: a recipe that names none or one of another kind, a codec there that was trained by another
            recipe, what the second stage would refuse, or errors of training the first.
    """
    chosen = getattr(recipe, section)
    if chosen.codec_recipe is None:
        open_codec(recipe)  # says what is missing
    place = folder / "codec"
    model = place / "model"
    # what the codec's recipe says itself
    own = {"labels", "flip", "plain"} if recipe.data.styles else {"labels", "flip"}
    data = recipe.data.model_dump(exclude=own)
    first = load_recipe(str(chosen.codec_recipe), {"data": data, "training": {"seed": recipe.training.seed}})
    wanted = "gaussian" if section == "latents" else "codes"
    if first.kind != "codec" or first.codec.latents != wanted:
        raise SettingError(
            f"{section}.codec_recipe = {chosen.codec_recipe} wants a recipe of a codec (kind: codec) whose latents are "
            f"{wanted} (codec.latents: {wanted}), and this one is of a {first.kind}"
            + (f" of {first.codec.latents}" if first.kind == "codec" else "")
        )
    if resume and (model / CARD).exists():
        was = build_recipe(read_json(model / CARD)["recipe"], "the codec's recipe")
        changed = "; ".join(differences(was, first))
        if changed:
            raise SettingError(
                f"the codec in {model} was trained by another recipe; it differs in {changed}. Undo the change, or "
                "choose another folder with --out"
            )
    else:
        if section == "latents":
            codec = wrapped(new_autoencoder(first, training))
            assert isinstance(codec, KLCodec)
            check_text(recipe, training, codec, reader)  # before the hours of the first stage, not after them
        model = _train_on(first, training, held, place, resume=resume, device=device, on_report=on_report)
    return recipe.model_copy(update={section: chosen.model_copy(update={"codec": str(model)})})


def token_figures(folder: Path) -> str:
    """What a trained model of tokens was measured at, in a line.

    Raises:
        CheckpointError: the folder's card is missing or damaged.
    """
    card = read_json(folder / CARD)
    measured = card["measured"]
    whose = "held-out" if measured["held_out"] else "training"
    what = "letter" if card["alphabet"] else "token" if card["levels"] is None else "pixel"
    error = "" if measured["error"] is None else f" ± {measured['error']:.3f}"
    return f"{measured['rows']} {whose} rows: at most {measured['bits']:.3f}{error} bits a {what}"


def codec_figures(folder: Path) -> str:
    """What a trained codec was measured at, in a line.

    Raises:
        CheckpointError: the folder's card is missing or damaged.
    """
    measured = read_json(folder / CARD)["measured"]
    whose = "held-out" if measured["held_out"] else "training"
    line = f"{measured['pictures']} {whose} pictures: PSNR {measured['psnr']:.2f} dB, SSIM {measured['ssim']:.4f}"
    if measured["perplexity"] is None:
        return line
    return f"{line}; codes used {measured['codebook_usage']:.0%}, perplexity {measured['perplexity']:.1f}"


def open_recipe_pictures(
    recipe: Recipe, *, skip_bad: bool = False, on_read: OnRead | None = None
) -> tuple[Pictures, list[str]]:
    """All pictures of a recipe, held-out ones included, and a sentence for each bad file that was left out.

    Raises:
        SettingError: colour, of a source that is grey.
        DataError: as `open_pictures`.
    """
    data = recipe.data
    pictures, bad = open_pictures(
        data.source, resolution=data.resolution, channels=data.channels, skip_bad=skip_bad, on_read=on_read
    )
    if data.channels not in (None, pictures.shape[0]):
        raise SettingError(f"data.channels = {data.channels}, and the pictures of {data.source} are grey: leave it out")
    return pictures, bad
