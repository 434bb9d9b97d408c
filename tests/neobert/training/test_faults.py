"""Faults that processes report become one, with the nodes that may be to blame."""

from __future__ import annotations

from neobert.training.faults import Fault, merge


def fault(node: str, reason: str) -> Fault:
    return Fault(f"{node}: {reason}", (node,), reason)


def test_nodes_with_different_complaints_are_all_to_blame() -> None:
    assert merge([fault("a", "no GPU"), fault("b", "no network"), fault("a", "no GPU")]) == Fault(
        "a: no GPU; b: no network", ("a", "b"), "no GPU; no network"
    )


def test_the_same_complaint_of_two_nodes_is_the_fault_of_neither() -> None:
    merged = merge([fault("a", "no GPU"), fault("b", "no GPU"), fault("c", "no network")])
    assert merged == Fault("a: no GPU; b: no GPU; c: no network", (), "no GPU; no network")


def test_faults_without_words_of_their_own_are_not_the_same() -> None:
    assert merge([Fault("a: x", ("a",)), Fault("b: y", ("b",))]).nodes == ("a", "b")


def test_a_fault_survives_its_way_to_another_process() -> None:
    assert Fault.parse(str(fault("a", 'no "GPU"'))) == fault("a", 'no "GPU"')
