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
