"""What may be a secret: by the name of a variable, the name of a file, or the look of a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

_SECRET = re.compile(
    r"TOKEN(?!S|IZ)|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|(^|_)(API|AUTH|PRIVATE|ACCESS|SIGNING|ENCRYPTION)_?KEY|_KEY$",
    re.IGNORECASE,
)
"""TOKENIZERS_PARALLELISM and MAX_TOKENS are none."""

_FILES = re.compile(
    r"\.env(\..*)?|\.envrc|.*\.env|\.netrc|_netrc|\.npmrc|\.pypirc|\.pgpass|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)"
    r"|.*\.(pem|key|p12|pfx|jks|keystore|kdbx)|(.*[._-])?(secrets?|credentials?|passwords?|tokens?)(\.[a-z]+)?",
    re.IGNORECASE,
)
"""Names of files; those of code (`secrets.py`) are none."""

_CODE = (".py", ".md", ".rst", ".c", ".h", ".cpp", ".cu", ".rs", ".go", ".ipynb", ".html", ".tex")

_KNOWN = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\w+://[^/\s:@]+:[^/\s@]+@"
)
"""Tokens of services that give them a form of their own, private keys, and passwords in addresses."""

_ASSIGNMENT = re.compile(
    r"(?P<name>[A-Za-z_][\w.-]*)[\"']?\s*[:=]\s*(?P<quote>[\"']?)(?P<value>[^\s\"'$<>{}()\[\]]{4,})(?P=quote)\s*[,;]?\s*(#.*)?$"
)

LEFT_OUT = "[left out: it may hold a secret]"


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds what no file, log or command line may show."""
    return _SECRET.search(name) is not None


def is_secret_file(path: str) -> bool:
    """Tell whether a file of this name usually holds secrets."""
    name = PurePosixPath(path)
    return name.suffix.lower() not in _CODE and _FILES.fullmatch(name.name) is not None


def is_secret_line(text: str) -> bool:
    """Tell whether a line of a file may hold a secret: a token of a known form, or a value given to a secret's name."""
    if _KNOWN.search(text):
        return True
    found = _ASSIGNMENT.search(text)
    if found is None or not is_secret(found["name"].replace("-", "_").replace(".", "_")):
        return False
    constant = bool(found["quote"]) or found["name"].isupper() or any(c.isdigit() for c in found["value"])
    return constant and found["value"].lower() not in ("none", "null", "true", "false")


def without_secrets(diff: str) -> tuple[str, list[str]]:
    """Return a diff without what may be secrets, and what was left out: files, and numbers of lines in others."""
    left_out: list[str] = []
    kept: list[str] = []
    for name, lines in _files_of(diff):
        if is_secret_file(name):
            kept += [lines[0], LEFT_OUT]
            left_out.append(name)
            continue
        hidden = [line[:1] in "+- " and is_secret_line(line[1:]) for line in lines]
        kept += [line[:1] + LEFT_OUT if hide else line for line, hide in zip(lines, hidden, strict=True)]
        if any(hidden):
            left_out.append(f"{name}: {sum(hidden)} line{'' if sum(hidden) == 1 else 's'}")
    return "\n".join(kept), left_out


def _files_of(diff: str) -> Iterator[tuple[str, list[str]]]:
    """Each file's name, and its lines in the diff."""
    lines: list[str] = []
    for line in [*diff.split("\n"), None]:
        if line is None or line.startswith("diff --git "):
            if lines:
                yield _name_in(lines[0]), lines
            lines = []
        if line is not None:
            lines.append(line)


def _name_in(header: str) -> str:
    """The file that `diff --git a/NAME b/NAME` is about; odd names are quoted."""
    return header.rpartition(" b/" if " b/" in header else '"b/')[2].rstrip('"')
