"""Which environment variables hold secrets, by their names."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"TOKEN(?!S|IZ)|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|(^|_)(API|AUTH|PRIVATE|ACCESS|SIGNING|ENCRYPTION)_?KEY|_KEY$",
    re.IGNORECASE,
)
"""TOKENIZERS_PARALLELISM and MAX_TOKENS are none."""


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds what no file, log or command line may show."""
    return _SECRET.search(name) is not None
