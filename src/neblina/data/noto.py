"""The archive of captioned emoji that `emoji-64` is trained on, made from two public repositories.

Pictures are those of googlefonts/noto-emoji (`png/128`, Apache-2.0) and its flags (`third_party/region-flags/png`,
public domain); names, keywords and groups are the English ones of emojibase (MIT): a checkout of milesj/emojibase, or
its npm package `emojibase-data` unpacked. Each picture is laid on white, in the middle of a square, and scaled with a
Lanczos filter. The order is Unicode's.

Some variants of skin tone are left out (`left_out.txt`), so that there are combinations which no training has seen and
whose pictures exist; a model is measured on further ones that a recipe holds out (`data.apart`).
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from neblina.core.atomic import write_file
from neblina.core.errors import DataError
from neblina.data.files import on_white

TONES = {1: "light", 2: "medium-light", 3: "medium", 4: "medium-dark", 5: "dark"}
_PICTURES, _FLAGS = Path("png/128"), Path("third_party/region-flags/png")
_NAMES = ("en/data.json", "packages/data/en/data.raw.json", "packages/data/en/data.json")
_MOST_MISSING = 0.2  # share of the names without a picture above which something else is wrong
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # of zip archives: the same pictures make the same bytes
_LETTERS = range(0x1F1E6, 0x1F200)  # regional indicators
OnRead = Callable[[int, int], None]


@dataclass(frozen=True)
class Emoji:
    """What emojibase says of one emoji.

    Attributes:
        codepoints: in hexadecimal without leading zeros and without the selector of variants, between hyphens.
        record: its line of metadata.jsonl.
    """

    codepoints: str
    record: dict[str, Any]

    @property
    def variant(self) -> bool:
        return bool(self.record["skin_tone_variant"])


def make_archive(
    pictures: Path, names: Path, place: Path, *, size: int = 64, variants: str = "some", on_read: OnRead | None = None
) -> tuple[int, list[str]]:
    """Write the archive; how many pictures it holds, and the names of those that have no picture.

    Args:
        pictures: a checkout of googlefonts/noto-emoji.
        names: a checkout of milesj/emojibase, or the package emojibase-data.
        place: the zip file.
        size: side of the pictures.
        variants: of skin tone: "some", "all" or "none".
        on_read: told how many emoji have been looked at, of how many.
    Raises:
        DataError: a folder is not what it should be, or a picture cannot be read.
        StorageError: the disk is full or refuses.
    """
    if not (pictures / _PICTURES).is_dir():
        raise DataError(f"{pictures} is no checkout of googlefonts/noto-emoji: it has no folder {_PICTURES}")
    gone = frozenset((files("neblina.data") / "left_out.txt").read_text().split())
    chosen = [
        emoji
        for emoji in emoji_of(names)
        if not emoji.variant or variants == "all" or (variants == "some" and emoji.codepoints not in gone)
    ]
    lines: list[str] = []
    missing: list[str] = []
    content: dict[str, bytes] = {}
    for number, emoji in enumerate(chosen, start=1):
        file = _file(pictures, emoji.codepoints)
        if file is None:
            missing.append(emoji.record["text"])
        else:
            source = "region-flags" if file.is_relative_to(pictures / _FLAGS) else "noto-emoji"
            lines.append(json.dumps({**emoji.record, "source": source}, ensure_ascii=False))
            content[emoji.record["file_name"]] = _scaled(file, size)
        if on_read is not None:
            on_read(number, len(chosen))
    if len(missing) > _MOST_MISSING * len(chosen):
        raise DataError(
            f"{pictures} lacks the pictures of {len(missing):,} of {len(chosen):,} emoji, such as {missing[0]!r}: is "
            "it a whole checkout of googlefonts/noto-emoji?"
        )

    def write(aside: Path) -> None:
        with zipfile.ZipFile(aside, "w") as archive:
            text = "".join(f"{line}\n" for line in lines).encode()
            archive.writestr(zipfile.ZipInfo("metadata.jsonl", _FIRST_DAY), text, zipfile.ZIP_DEFLATED)
            for name, picture in content.items():
                archive.writestr(zipfile.ZipInfo(name, _FIRST_DAY), picture, zipfile.ZIP_STORED)

    write_file(place, write)
    return len(content), missing


def emoji_of(names: Path) -> list[Emoji]:
    """All emoji that emojibase names, in Unicode's order, variants behind what they vary.

    Raises:
        DataError: it is not where it should be, or not what it should be.
    """
    place = next((names / file for file in _NAMES if (names / file).is_file()), None)
    if place is None:
        raise DataError(
            f"{names} holds no names: neither of {' and '.join(_NAMES)}. Give a checkout of milesj/emojibase, or the "
            "npm package emojibase-data unpacked (npm pack emojibase-data)"
        )
    try:
        entries = json.loads(place.read_text("utf-8"))
        groups, subgroups = _groups(place)
        found = [
            (one.get("order", len(entries) * 10), Emoji(_plain(one["hexcode"]), _record(one, top, groups, subgroups)))
            for top in entries
            for one in (top, *top.get("skins", ()))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place} is not emojibase's data: {error!r}") from error
    return [emoji for _, emoji in sorted(found, key=lambda pair: pair[0])]


def _groups(place: Path) -> tuple[dict[int, str], dict[int, str]]:
    """What groups and subgroups are called, by their numbers: a group for people, a subgroup by its key."""
    raw = ".raw" if place.name.endswith(".raw.json") else ""
    said = json.loads((place.parent / f"messages{raw}.json").read_text("utf-8"))
    groups = {int(one["order"]): str(one["message"]) for one in said["groups"]}
    return groups, {int(one["order"]): str(one["key"]) for one in said["subgroups"]}


def _record(
    one: dict[str, Any], top: dict[str, Any], groups: dict[int, str], subgroups: dict[int, str]
) -> dict[str, Any]:
    codepoints = _plain(one["hexcode"])
    tone = one.get("tone", ())
    tones = [TONES[number] for number in (tone if isinstance(tone, list) else [tone] if tone else [])]
    letter = int(codepoints.split("-")[0], 16) in _LETTERS and "-" not in codepoints
    return {
        "file_name": f"images/{codepoints}.png",
        "text": one["label"],
        "emoji": one["emoji"],
        "codepoints": codepoints,
        "keywords": list(top.get("tags", ())),
        "group": "components" if letter else groups[one["group"]],
        "subgroup": "regional-indicator" if letter else subgroups[one["subgroup"]],
        "skin_tones": tones,
        "skin_tone_variant": bool(tones),
        "base_text": _without_tone(one["label"], top["label"]) if tones else one["label"],
    }


def _without_tone(label: str, plain: str) -> str:
    """The name without its tones, where that of the emoji without any is `plain`.

    "man: dark skin tone, beard" is "man: beard"; "kiss: person, person, light skin tone, dark skin tone" is "kiss".
    """
    name, _, rest = label.partition(": ")
    kept = [part for part in rest.split(", ") if not part.endswith("skin tone")]
    return f"{name}: {', '.join(kept)}" if kept and name != plain else name


def _plain(hexcode: str) -> str:
    return "-".join(one.lstrip("0") for one in hexcode.lower().split("-") if one != "fe0f")


def _file(checkout: Path, codepoints: str) -> Path | None:
    """Where the picture of an emoji lies, None where there is none."""
    padded = "_".join(one.rjust(4, "0") for one in codepoints.split("-"))
    for place in (checkout / _PICTURES / f"emoji_u{padded}.png", checkout / _FLAGS / f"{_region(codepoints)}.png"):
        if place.is_file():
            return place
    return None


def _region(codepoints: str) -> str:
    """The region of a flag as its file is called, such as FR or GB-ENG; nothing for what is no flag."""
    numbers = [int(one, 16) for one in codepoints.split("-")]
    if len(numbers) == 2 and all(number in _LETTERS for number in numbers):
        return "".join(chr(number - _LETTERS.start + ord("A")) for number in numbers)
    letters = "".join(chr(number - 0xE0000) for number in numbers[1:-1] if 0xE0000 < number < 0xE0080).upper()
    return f"{letters[:2]}-{letters[2:]}" if letters else ""


def _scaled(file: Path, size: int) -> bytes:
    try:
        with Image.open(file) as picture:
            flat = on_white(picture).convert("RGB")
    except OSError as error:
        raise DataError(f"{file} cannot be read as a picture: {error}") from error
    side = max(flat.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(flat, ((side - flat.width) // 2, (side - flat.height) // 2))
    stream = io.BytesIO()
    square.resize((size, size), Image.Resampling.LANCZOS).save(stream, "PNG")
    return stream.getvalue()
