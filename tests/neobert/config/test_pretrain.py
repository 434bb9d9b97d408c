"""Settings of a pretraining that do not go together are refused, each with what would."""

from __future__ import annotations

from typing import Any

import pytest

from neobert.config import ConfigError, PretrainConfig, validate

MINIMAL: dict[str, Any] = {"dataset": {"path": "shards"}, "trainer": {"max_steps": 9}}


def settings(**sections: dict[str, Any]) -> dict[str, Any]:
    """The least that is needed, and these."""
    return {name: {**MINIMAL.get(name, {}), **sections.get(name, {})} for name in {**MINIMAL, **sections}}


def refusal(**sections: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        validate(PretrainConfig, settings(**sections))
    return str(refused.value)


def test_spikes_are_not_told_with_deepspeed_which_skips_none() -> None:
    told = refusal(trainer={"spike_factor": 4.0}, deepspeed={"zero_stage": 1})
    assert told.startswith("trainer.spike_factor: DeepSpeed has taken a step before its gradient can be judged")


def test_three_words_for_a_resume_are_one_trial() -> None:
    first, *others = (
        validate(PretrainConfig, settings(trainer={"max_steps": 9, "resume_from_checkpoint": word}))
        for word in ("auto", "latest", True)
    )
    assert others == [first, first]
    assert first.starts_from is None


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "yarn", "low_freq_factor": 1.0}, "low_freq_factor can only stand beside rope_type: llama3"),
        ({"rope_type": "llama3", "low_freq_factor": 4.0}, "low_freq_factor 4.0 must be less than high_freq_factor 4.0"),
    ],
)
def test_the_factors_of_llama3_are_its_own(scaling: dict[str, Any], message: str) -> None:
    assert refusal(model={"rope_scaling": {"factor": 4.0, **scaling}}) == f"model.rope_scaling: {message}"


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_a_stretched_rope_that_was_written_out_can_be_read_again(kind: str) -> None:
    config = validate(PretrainConfig, settings(model={"rope_scaling": {"rope_type": kind, "factor": 4.0}}))
    written = config.model_dump(mode="json")
    assert ("low_freq_factor" in written["model"]["rope_scaling"]) == (kind == "llama3")
    assert validate(PretrainConfig, written) == config


def test_a_token_budget_of_padded_batches_is_that_of_one_batch() -> None:
    budget = {"max_tokens": 4096, "pack_sequences": False}
    told = refusal(datacollator=budget, trainer={"per_device_train_batch_size": 1})
    assert told.startswith("datacollator.max_tokens without pack_sequences is what a whole batch takes")
    assert "set trainer.per_device_eval_batch_size to 1 (trainer.gradient_accumulation_steps makes larger" in told
    assert "set trainer.per_device_train_batch_size and trainer.per_device_eval_batch_size to 1" in refusal(
        datacollator=budget
    )
    one = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 8}
    validate(PretrainConfig, settings(datacollator=budget, trainer=one))
    validate(PretrainConfig, settings(datacollator={"max_tokens": 4096}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"scheduler": {"name": "wsd", "decay_steps": 10}},
            "scheduler.decay_steps: is more than the 9 steps of the training. scheduler.name: linear goes down all the",
        ),
        (
            {"trainer": {"max_steps": None, "max_tokens": 99}, "scheduler": {"name": "wsd", "decay_tokens": 100}},
            "scheduler.decay_tokens: is more than the 99 tokens of the training. ",
        ),
        (
            {"trainer": {"max_steps": None, "num_train_epochs": 1.0},
             "dataset": {"path": None, "sources": [{"path": "a", "weight": 1.0}, {"path": "b", "weight": 2.0}]}},
            "trainer.num_train_epochs: weighted sources have no epochs: set max_tokens",
        ),
    ],
)  # fmt: skip
def test_what_fails_in_every_job_is_refused_before_any(sections: dict[str, Any], message: str) -> None:
    assert refusal(**sections).startswith(message)
