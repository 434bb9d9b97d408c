"""Somebody does something to a thing, somewhere, sometime: the facts that sentence pairs agree or differ about."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random

# Each entry is one meaning; its words are synonyms.
PEOPLE = (("anna",), ("bruno",), ("carla",), ("david",), ("elena",), ("felix",), ("greta",), ("henry",))
ACTIONS = (("bought", "purchased"), ("found", "discovered"), ("repaired", "fixed"), ("lost", "mislaid"),
           ("painted", "coloured"), ("sold", "traded"))  # fmt: skip
COLOURS = (("red", "scarlet"), ("blue", "azure"), ("white", "pale"), ("black", "dark"), ("green",), ("yellow",))
THINGS = (("car", "automobile"), ("boat", "ship"), ("house", "home"), ("bag", "sack"), ("coat", "jacket"),
          ("chair", "seat"), ("bicycle", "bike"), ("picture", "painting"))  # fmt: skip
PLACES = (("in paris",), ("in rome",), ("at school",), ("at the market",), ("by the river",), ("on the hill",))
TIMES = (("on monday",), ("on friday",), ("at noon", "at midday"), ("at dawn", "at sunrise"), ("in winter",),
         ("in summer",))  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Which meaning fills each place, as numbers into the lists above."""

    person: int
    action: int
    colour: int
    thing: int
    place: int
    time: int


MEANINGS = {"person": PEOPLE, "action": ACTIONS, "colour": COLOURS, "thing": THINGS, "place": PLACES, "time": TIMES}
SLOTS = tuple(field.name for field in fields(Event))


def any_event(rng: Random) -> Event:
    return Event(**{slot: rng.randrange(len(MEANINGS[slot])) for slot in SLOTS})


def changed(event: Event, slots: list[str], rng: Random) -> Event:
    """The event with another meaning in each of `slots`."""
    shifts = {}
    for slot in slots:
        count = len(MEANINGS[slot])
        shifts[slot] = (getattr(event, slot) + rng.randrange(1, count)) % count
    return replace(event, **shifts)


def words(event: Event, rng: Random) -> dict[str, str]:
    """A word for every place of the event; which of the synonyms is up to chance."""
    return {slot: rng.choice(MEANINGS[slot][getattr(event, slot)]) for slot in SLOTS}
