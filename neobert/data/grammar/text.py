"""Documents of the same made-up English as the tasks, for pretraining; no example of a task is copied into them."""

from __future__ import annotations

from random import Random

from neobert.data.grammar import pairs, sentences
from neobert.data.grammar.events import any_event


def document(number: int) -> str:
    """A short text; the same number gives the same one on every machine."""
    rng = Random(f"text {number}")  # a string seeds alike in every Python
    kind = rng.choice((_story, _description, _review))
    return " ".join(kind(rng) for _ in range(rng.randint(2, 5)))


def _story(rng: Random) -> str:
    """One event, told twice, and statements that follow from it."""
    event = any_event(rng)
    tellings = [pairs.tell(telling, event, rng) for telling in rng.sample(pairs.TELLINGS, 2)]
    statements = rng.sample(pairs.STATEMENTS, rng.randint(1, 3))
    return " ".join([*tellings, *(pairs.tell(statement, event, rng) for statement, _ in statements)])


def _description(rng: Random) -> str:
    return " ".join(f"{sentences.well_formed(rng)}." for _ in range(rng.randint(2, 4)))


def _review(rng: Random) -> str:
    """Verdicts that agree with each other."""
    positive = rng.randrange(2)
    return " ".join(f"{sentences.verdict(positive, rng)}." for _ in range(rng.randint(2, 4)))
