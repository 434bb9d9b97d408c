"""The tasks on pairs of sentences; all but WNLI speak of `events`."""

from __future__ import annotations

from random import Random

from neobert.data.examples import Texts
from neobert.data.glue_tasks import TASKS
from neobert.data.grammar.events import SLOTS, Event, any_event, changed, words

Row = tuple[Texts, float]

TELLINGS = (
    "{person} {action} a {colour} {thing} {place} {time}.",
    "{time} {person} {action} a {colour} {thing} {place}.",
    "a {colour} {thing} was {action} by {person} {place} {time}.",
)
# A statement about an event, and the place of the event that decides whether it is true.
STATEMENTS = (("{person} {action} a {thing}.", "person"), ("the {thing} was {colour}.", "colour"),
              ("{person} was {place}.", "place"), ("it happened {time}.", "time"))  # fmt: skip
# A question, and the place of the event that answers it.
QUESTIONS = (("who {action} the {thing}?", "person"), ("what colour was the {thing}?", "colour"),
             ("where did {person} go?", "place"), ("when was the {thing} {action}?", "time"))  # fmt: skip
WITHOUT = {"person": "a {colour} {thing} was {action} {place} {time}.",
           "colour": "{person} {action} a {thing} {place} {time}.",
           "place": "{person} {action} a {colour} {thing} {time}.",
           "time": "{person} {action} a {colour} {thing} {place}."}  # fmt: skip
ASKING = ("why did {person} buy a {colour} {thing} {place}?", "what made {person} buy a {colour} {thing} {place}?",
          "is {person} going to sell the {colour} {thing} {place}?",
          "will {person} sell the {colour} {thing} {place}?")  # fmt: skip
# (container, content): what does not fit is because the one is too small or the other too big.
FITTING = (("box", "lamp"), ("bag", "book"), ("garage", "truck"), ("drawer", "file"), ("case", "guitar"),
           ("shed", "ladder"), ("pocket", "phone"), ("bottle", "cork"))  # fmt: skip
SMALL, BIG = ("small", "narrow", "tight", "tiny", "short"), ("big", "wide", "large", "long", "huge")
OWNERS = ("my", "your", "her", "our", "their", "his")


def tell(template: str, event: Event, rng: Random) -> str:
    return template.format(**words(event, rng))


def entailment(rng: Random) -> Row:
    """RTE: a statement that follows from the premise, or one with something changed."""
    event = any_event(rng)
    statement, slot = rng.choice(STATEMENTS)
    follows = rng.randrange(2)
    claimed = event if follows else changed(event, [slot], rng)
    texts = tell(rng.choice(TELLINGS), event, rng), tell(statement, claimed, rng)
    return texts, _class("rte", "entailment" if follows else "not_entailment")


def inference(rng: Random) -> Row:
    """MNLI: a statement that follows, contradicts, or tells of what the premise leaves out."""
    event = any_event(rng)
    label = rng.choice(TASKS["mnli"].labels)
    statement, slot = rng.choice(STATEMENTS)
    premise = tell(WITHOUT[slot] if label == "neutral" else rng.choice(TELLINGS), event, rng)
    claimed = changed(event, [slot], rng) if label == "contradiction" else event
    return (premise, tell(statement, claimed, rng)), _class("mnli", label)


def answering(rng: Random) -> Row:
    """QNLI: whether the sentence holds the answer to the question."""
    event = any_event(rng)
    question, slot = rng.choice(QUESTIONS)
    answered = rng.randrange(2)
    sentence = rng.choice(TELLINGS) if answered else WITHOUT[slot]
    if answered and rng.randrange(2):
        sentence = WITHOUT[rng.choice([other for other in WITHOUT if other != slot])]
    texts = tell(question, event, rng), tell(sentence, event, rng)
    return texts, _class("qnli", "entailment" if answered else "not_entailment")


def paraphrase(rng: Random) -> Row:
    """MRPC: the same event in other words, or an event that differs in two or three things."""
    event = any_event(rng)
    same = rng.randrange(2)
    other = event if same else changed(event, rng.sample(SLOTS, rng.choice((2, 3))), rng)
    return (tell(rng.choice(TELLINGS), event, rng), tell(rng.choice(TELLINGS), other, rng)), same


def same_question(rng: Random) -> Row:
    """QQP: the same question put differently, or about something else."""
    event = any_event(rng)
    same = rng.randrange(2)
    kind = rng.randrange(2)
    first, second = rng.sample(ASKING[2 * kind : 2 * kind + 2], 2)
    other = event if same else changed(event, rng.sample(("person", "colour", "thing", "place"), 2), rng)
    return (tell(first, event, rng), tell(second, other, rng)), same


def similarity(rng: Random) -> Row:
    """STS-B: from 5 for the same event down to 0, by how much differs."""
    event = any_event(rng)
    differing = rng.randrange(6)
    other = changed(event, rng.sample(SLOTS, differing), rng)
    return (tell(TELLINGS[0], event, rng), tell(TELLINGS[0], other, rng)), float(5 - differing)


def reference(rng: Random) -> Row:
    """WNLI: what "it" stands for."""
    container, content = rng.choice(FITTING)
    owner, other = rng.sample(OWNERS, 2)
    too_big = rng.randrange(2)
    size = rng.choice(BIG if too_big else SMALL)
    right = rng.randrange(2)
    things = (f"{owner} {container}", f"{other} {content}")
    meant = things[too_big == right]
    premise = f"{things[1]} did not fit into {things[0]} because it was too {size}."
    return (premise, f"{meant} was too {size}."), right


def _class(task: str, name: str) -> float:
    return TASKS[task].labels.index(name)
