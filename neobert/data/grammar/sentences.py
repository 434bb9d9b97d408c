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
    """A sentence whose determiner, noun and verb agree in number and stand in order, or one mistake in it."""
    number, other, third = rng.randrange(2), rng.randrange(2), rng.randrange(2)
    subject = _noun_phrase(number, rng)
    aside = [rng.choice(NEAR), *_noun_phrase(other, rng)] if rng.random() < 0.5 else []
    verbs = rng.choice(VERBS)
    adverb = [rng.choice(ADVERBS)] if rng.random() < 0.5 else []
    verb = [verbs[number]]
    acceptable = rng.randrange(2)
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
    sentence = " ".join([*subject, *aside, *adverb, *verb, *_noun_phrase(third, rng)])
    return (f"{sentence}.",), acceptable


def _noun_phrase(number: int, rng: Random) -> list[str]:
    adjective = [rng.choice(ADJECTIVES)] if rng.random() < 0.4 else []
    return [rng.choice(DETERMINERS)[number], *adjective, rng.choice(NOUNS)[number]]


def sentiment(rng: Random) -> tuple[Texts, float]:
    """A verdict, in which a denial turns the adjective round and what follows "but" outweighs what precedes it."""
    positive = rng.randrange(2)
    verdict = _clause(positive, rng)
    if rng.random() < 0.5:
        verdict = f"{_clause(1 - positive, rng)} but {verdict}"
    return (verdict,), positive


def _clause(positive: int, rng: Random) -> str:
    denied = rng.random() < 0.4
    adjective = rng.choice(PRAISE if positive != denied else BLAME)
    degree = rng.choice(DENIALS) if denied else rng.choice(DEGREES)
    return " ".join(f"the {rng.choice(WORKS)} is {degree} {adjective}".split())
