"""Output on terminals that do not show UTF-8, and exact bytes for what a program reads."""

from __future__ import annotations

import codecs
import locale
import os
import sys

HANDLER = "recipe"
PLAIN = {"…": "...", "—": "-", "·": "-", "±": "+-", "━": "=", "╸": "-", "╺": "-"}
"""Replacements for the characters that our own output holds."""


def set_up_output() -> None:
    """Makes every text printable: what the terminal's encoding lacks is replaced.

    Paths go into scripts and files as UTF-8. Where Python would read them in another encoding, the program starts over
    in UTF-8 mode, and keeps the locale's encoding for the terminal alone.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    codecs.register_error(HANDLER, _replace)
    started_over = "utf8" in sys._xoptions and "PYTHONIOENCODING" not in os.environ
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a closed one is None
        encoding = locale.getencoding() if started_over else stream.encoding
        stream.reconfigure(encoding=encoding, errors=HANDLER)


def echo(text: object, *, err: bool = False) -> None:
    """Prints a line for a person."""
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def write_exactly(text: str) -> None:
    """Prints a text that a program reads, in UTF-8 whatever the terminal shows; paths keep their bytes."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a path that is not UTF-8: shown as `ls` shows it
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode(), error.start + 1
