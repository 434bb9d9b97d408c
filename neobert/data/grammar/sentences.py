"""CoLA and SST-2: one sentence that is well formed or not, and one that praises or does not."""

from __future__ import annotations

from random import Random

from neobert.data.examples import Texts

NOUNS = (("dog", "dogs"), ("cat", "cats"), ("child", "children"), ("teacher", "teachers"), ("farmer", "farmers"),
         ("bird", "birds"), ("doctor", "doctors"), ("horse", "horses"), ("neighbour", "neighbours"),
         ("singer", "singers"))  # fmt: skip
VERBS = (("sees", "see"), ("likes", "like"), ("follows", "follow"), ("hears", "hear"), ("helps", "help"),
         ("knows", "know"), ("avoids", "avoid"), ("feeds", "feed"))  # fmt: skip
DETERMINERS = (("this", "these"), ("that", "those"), ("every", "many"), ("a", "several"))
ADJECTIVES = ("old", "small", "happy", "quiet", "tall", "clever", "tired", "young")
NEAR = ("near", "behind", "with", "above")
ADVERBS = ("often", "never", "always", "rarely")

PRAISE = ("brilliant", "charming", "funny", "moving", "clever", "delightful", "superb", "gripping", "fresh", "warm")
BLAME = ("dull", "clumsy", "boring", "empty", "awful", "tedious", "shallow", "lifeless", "stale", "cold")
WORKS = ("film", "story", "plot", "cast", "script", "ending", "acting", "music", "humour", "camera work")
DEGREES = ("", "very", "truly", "rather", "quite", "really")
DENIALS = ("not", "never", "hardly", "anything but")


def acceptability(rng: Random) -> tuple[Texts, float]:
    """A well-formed sentence, or one with a mistake in it."""
    sentence, acceptable = _sentence(rng, may_be_wrong=True)
    return (f"{sentence}.",), acceptable


def well_formed(rng: Random) -> str:
    """Determiner, noun and verb agree in number and stand in order."""
    return _sentence(rng, may_be_wrong=False)[0]


def _sentence(rng: Random, *, may_be_wrong: bool) -> tuple[str, int]:
    number, other, third = rng.randrange(2), rng.randrange(2), rng.randrange(2)
    subject = _noun_phrase(number, rng)
    aside = [rng.choice(NEAR), *_noun_phrase(other, rng)] if rng.random() < 0.5 else []
    verbs = rng.choice(VERBS)
    adverb = [rng.choice(ADVERBS)] if rng.random() < 0.5 else []
    verb = [verbs[number]]
    acceptable = rng.randrange(2) if may_be_wrong else 1
    if not acceptable:
        match rng.choice(("agreement", "determiner", "order", "missing")):
            case "agreement":
                verb = [verbs[1 - number]]
            case "determiner":
                subject[0] = next(pair[1 - number] for pair in DETERMINERS if pair[number] == subject[0])
            case "order":
                subject[0], subject[-1] = subject[-1], subject[0]
            case "missing":
                verb = []
    return " ".join([*subject, *aside, *adverb, *verb, *_noun_phrase(third, rng)]), acceptable


def _noun_phrase(number: int, rng: Random) -> list[str]:
    adjective = [rng.choice(ADJECTIVES)] if rng.random() < 0.4 else []
    return [rng.choice(DETERMINERS)[number], *adjective, rng.choice(NOUNS)[number]]


def sentiment(rng: Random) -> tuple[Texts, float]:
    """A verdict, in which a denial turns the adjective round and what follows "but" outweighs what precedes it."""
    positive = rng.randrange(2)
    return (verdict(positive, rng),), positive


def verdict(positive: int, rng: Random) -> str:
    clause = _clause(positive, rng)
    return f"{_clause(1 - positive, rng)} but {clause}" if rng.random() < 0.5 else clause


def _clause(positive: int, rng: Random) -> str:
    denied = rng.random() < 0.4
    adjective = rng.choice(PRAISE if positive != denied else BLAME)
    degree = rng.choice(DENIALS) if denied else rng.choice(DEGREES)
    return " ".join(f"the {rng.choice(WORKS)} is {degree} {adjective}".split())
