"""Templates of shell scripts, in which every value is quoted."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

import jinja2

from neobert.config import ConfigError


def template(name: str) -> jinja2.Template:
    """A template of `templates/`; its filter `sh` quotes a value for bash."""
    return _environment().get_template(name)


def quote(value: object) -> str:
    """The value as one word of bash."""
    text = str(value)
    if "\0" in text:
        raise ConfigError(f"{text!r} holds a NUL character, which no argument, path or variable can")
    return shlex.quote(text)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="<#",  # `{#` is bash, as in ${#array[@]}
        comment_end_string="#>",
        autoescape=False,  # bash, not HTML: every value passes through the filter `sh`
    )
    environment.filters["sh"] = quote
    return environment
