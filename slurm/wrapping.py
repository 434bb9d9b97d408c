"""Texts in few terminal cells: on several lines, or without their middle. Numbers in them stay whole."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import pairwise

from rich.cells import cell_len

SHARES = (0.35, 0.0, 0.65, 1.0)
"""Shares of a shortened text that are its beginning, the preferred one first: the end of a path says most."""
WIDTHS = (12, 16, 24, 32, 48, 64, 96)
"""Cells to which a column of texts may shrink."""
BETWEEN = " · "  # items

_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?")
_BREAK = re.compile(r"[/_:;=|]|[-.,+](?!\d)")
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_JOINERS = "\u200c\u200d"  # parts of emoji and of scripts, though not printable by themselves


def clean(text: str) -> str:
    """Return `text` as one line without control characters, which would break the table or command the terminal."""
    plain = _ESCAPE.sub("", text)
    return "".join(c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd" for c in plain)


def look(text: str) -> str:
    """Return the same text for all texts that a reader cannot tell apart."""
    return unicodedata.normalize("NFC", text).strip()


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces; a longer word breaks after a mark such as `/`, or anywhere."""
    lines = [""]
    for word in re.findall(r"\s*\S+", text):
        if cell_len(lines[-1] + word) <= width:
            lines[-1] += word
        else:
            lines += _pieces(word.lstrip(), width)
    return lines if lines[0] or len(lines) == 1 else lines[1:]


def flow(items: Iterable[str], width: int) -> list[str]:
    """Put items one after another, on lines of at most `width` cells; an item breaks only where it is longer."""
    lines: list[str] = []
    for item in items:
        if lines and cell_len(lines[-1] + BETWEEN + item) <= width:
            lines[-1] += BETWEEN + item
        else:
            lines += wrap(item, width)
    return lines


def name_lines(name: str, width: int) -> list[str]:
    """Break a name into lines of at most `width` cells, after marks such as `_`; a part without marks may be wider."""
    places = [0, *(match.end() for match in _BREAK.finditer(name) if match.end() < len(name)), len(name)]
    lines = [""]
    for part in (name[start:end] for start, end in pairwise(places)):
        if cell_len(lines[-1] + part) <= width or not lines[-1]:
            lines[-1] += part
        else:
            lines.append(part)
    return lines


@lru_cache
def name_width(name: str, lines: int) -> int:
    """The fewest cells in which a name takes at most so many lines."""
    for width in range(1, cell_len(name)):
        broken = name_lines(name, width)
        if len(broken) <= lines and max(map(cell_len, broken)) <= width:
            return width
    return cell_len(name)


@lru_cache  # asked again for each column that is dropped
def narrowest(texts: tuple[str, ...]) -> int:
    """Return the fewest cells to which the texts may be shortened together."""
    natural = max(map(cell_len, texts), default=0)
    return next((width for width in WIDTHS if width < natural and shortened(texts, width) is not None), natural)


def shortened(texts: Sequence[str], width: int) -> tuple[str, ...] | None:
    """Shorten texts to `width` cells each, so that different ones stay different; None if there is no way."""
    if any(cell_len(text) > width and _NUMBER.fullmatch(text) for text in texts):
        return None
    different = len(set(map(look, texts)))
    for cut in _cuts(texts, width):
        shorter = tuple(text if cell_len(text) <= width else cut(text) for text in texts)
        if len(set(map(look, shorter))) == different:
            return shorter
    return None


def _cuts(texts: Sequence[str], width: int) -> Iterable[Callable[[str], str]]:
    """Ways to shorten a text that is longer than `width`: without its middle, or without what all such texts share."""
    for share in SHARES:
        yield partial(_without_middle, width=width, share=share)
    longer = [text for text in texts if cell_len(text) > width]
    yield partial(_from, start=_common(min(longer), max(longer)), width=width)


def _common(text: str, other: str) -> int:
    """The length of the beginning that two texts share."""
    return next((place for place, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(text))


def _without_middle(text: str, width: int, share: float) -> str:
    front = _before_number(text, len(_head(text, round((width - 1) * share))))
    back = len(text) - len(_tail(text, width - 1 - cell_len(text[:front])))
    return f"{text[:front]}…{text[_after_number(text, back) :]}"


def _from(text: str, start: int, width: int) -> str:
    rest = text[_before_number(text, start) :]
    if cell_len(rest) < width:
        return "…" + rest
    return f"…{rest[: _before_number(rest, len(_head(rest, width - 2)))]}…"


def _pieces(word: str, width: int) -> list[str]:
    pieces = []
    while cell_len(word) > width:
        most = len(_head(word, width))
        mark = max((match.end() for match in _BREAK.finditer(word, 0, most)), default=0)
        place = mark or _before_number(word, most) or most or 1
        pieces.append(word[:place])
        word = word[place:]
    return [*pieces, word]


def _head(text: str, width: int) -> str:
    """The longest beginning of at most `width` cells, with all accents of its last character."""
    end = used = 0
    for end, character in enumerate(text, start=1):
        used += cell_len(character)
        if used > width:
            end -= 1
            break
    while cell_len(text[:end]) > width:  # some characters make the one before them wider
        end -= 1
    return text[:end]


def _tail(text: str, width: int) -> str:
    """The longest end of at most `width` cells; it does not begin with the accent of a character before."""
    start = len(text)
    while start and cell_len(text[start - 1 :]) <= width:
        start -= 1
    while start < len(text) and cell_len(text[start]) == 0:
        start += 1
    return text[start:]


def _before_number(text: str, place: int) -> int:
    """Return `place`, or the beginning of the number that it lies in."""
    return next((m.start() for m in _NUMBER.finditer(text) if m.start() < place < m.end()), place)


def _after_number(text: str, place: int) -> int:
    """Return `place`, or the end of the number that it lies in."""
    return next((m.end() for m in _NUMBER.finditer(text) if m.start() < place < m.end()), place)
