"""Which of the words on a command line is the model: it may be left out, for the one that comes with the package."""

from pathlib import Path

from neblina.core.errors import SettingError


def model_first(words: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The words behind a command that makes pictures of words, the model first.

    The first word is the model where it is the path, the file or the name of one, or where every place has a word.
    """
    from neblina.bundle.sources import DEFAULT, names_a_model

    if words[-1] is not None or (words[0] is not None and names_a_model(words[0])):
        return words
    return (DEFAULT, *words[:-1])


def model_before(pictures: int, words: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The words behind a command that reads pictures, the model first.

    Args:
        pictures: how many of the words are pictures' paths, behind the model; where the first word is a picture
            already, the model is left out.
    Raises:
        SettingError: fewer words than pictures.
    """
    from neblina.bundle.sources import DEFAULT
    from neblina.data.files import SUFFIXES

    first = words[0]
    given = words
    if first is not None and Path(first).suffix.lower() in SUFFIXES and words[-1] is None:
        given = (DEFAULT, *words[:-1])
    if any(word is None for word in given[: pictures + 1]):
        raise SettingError(
            f"{pictures} picture{'s are' if pictures > 1 else ' is'} needed: give the path, such as photo.png"
        )
    return given
