"""Jinja in values: native types, strict names, a sandbox."""

from __future__ import annotations

import resource
import signal
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm import values
from slurm.secrets import is_secret
from slurm.values import EnvironmentScope, Scope, bounded, render

VARS: dict[str, Any] = {
    "one": 1, "lr": 1e-5, "two": "{{ vars.one + 1 }}", "text": "lr-{{ vars.two }}",
    "deep": {"list": [1, "{{ vars.two }}"]},
    "items": "an item", "self": "{{ vars.self }}", "ping": "{{ vars.pong }}", "pong": "{{ vars.ping }}",
    "version": "1.10", "none": None,
}  # fmt: skip


@pytest.fixture
def names() -> dict[str, Any]:
    names: dict[str, Any] = {}
    names["vars"] = Scope("vars", VARS, names)
    return names


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ vars.lr }}", 1e-5), ("{{ vars.two }}", 2), ("{{ vars.text }}", "lr-2"), ("{{ vars.version }}", "1.10"),
        ("{{ vars.deep.list }}", [1, 2]), ("{{ vars.deep }}", {"list": [1, 2]}), ("{{ range(3) }}", [0, 1, 2]),
        ("{{ vars.items }}", "an item"), ("{{- vars.one -}}", 1), ("{{ vars.none }}", None),
        ("{{ vars.one }}{{ vars.one }}", "11"), ("{% if vars.one %}yes{% endif %}", "yes"),
        ("{{ vars.one > 0 }}", True),
        ("{# nothing #}", ""), ("plain", "plain"), ({"a": ["{{ vars.one }}"]}, {"a": [1]}), ("{{ '{{' }}", "{{"),
    ],
)  # fmt: skip
def test_one_expression_keeps_its_type_and_a_mixture_is_text(names: dict[str, Any], template: Any, value: Any) -> None:
    assert render(template, names) == value
    assert type(render(template, names)) is type(value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ vars.too }}", r"'vars\.too' is not defined; did you mean 'two'"),
        ("{{ vars.deep.lost }}", r"'vars\.deep\.lost' is not defined; did you mean 'list'"),
        ("x{{ nothing }}", "'nothing' is not defined"),
        ("{{ vars.self }}", r"refers to itself: vars\.self -> vars\.self"),
        ("{{ vars.ping }}", r"refers to itself: vars\.ping -> vars\.pong -> vars\.ping"),
        ("{{ ''.__class__.__mro__ }}", "__class__"),
        ("{{ vars.one", "unexpected"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ dict }}", "is no YAML value"),
        ("{{ vars.one.x.y }}", "not defined"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{{ [].append(1) }}", "'append' is not defined"),
    ],
)
def test_what_cannot_be_filled_in_is_an_error_with_its_place(
    names: dict[str, Any], template: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        render({"a": [template]}, names)
    assert caught.value.problems[0].path == ("a", 0)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 'a' * 10**11 }}", "needs more than 1 GiB of memory"),
        ("x{{ 'a'.ljust(10**10) }}", "needs more than 1 GiB of memory"),
        ("x{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes longer than 1 s"),
        ("{{ 'a' * 2_000_000 }}", "gives a text of 2,000,000 characters, at most 1,000,000 are taken"),
        ("x{{ 'a' * 2_000_000 }}", "gives a text of 2,000,001 characters"),
        ("{{ 10**400 }}", "gives a number of more than 300 digits"),
        ("{{ lipsum() }}", "'lipsum' is not defined"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
    ],
)  # fmt: skip
def test_a_template_without_end_or_measure_is_an_error(
    monkeypatch: pytest.MonkeyPatch, template: str, message: str
) -> None:
    monkeypatch.setattr(values, "SECONDS", 1)
    with pytest.raises(ConfigError, match=message) as caught, bounded():
        render({"a": template}, {})
    assert len(str(caught.value)) < 400


def test_bounds_end_with_their_context() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    with bounded():
        assert resource.getrlimit(resource.RLIMIT_AS) != before[0]
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize(
    "template",
    ["{{ env }}", "x{{ env }}", "{{ env | list }}", "{{ env.items() | list }}", "{{ env.values() | join }}",
     "{{ dict(env) }}", "{% for name in env %}{{ env[name] }}{% endfor %}", "{{ env | length }}",
     "{{ env | items | list }}", "{{ env | dictsort }}", "{{ env | xmlattr }}", "{{ env | string }}",
     "{{ env | pprint }}", "{{ '%s' % env }}", "{{ '{}'.format(env) }}"],
)  # fmt: skip
def test_the_environment_is_read_by_name_only(template: str) -> None:
    names = {"env": EnvironmentScope({"MY_DIR": "/data", "HF_TOKEN": "hf_abc"})}
    assert render("{{ env.MY_DIR }} {{ env['MY_DIR'] }} {{ env.get('NO', 'x') }}", names) == "/data /data x"
    with pytest.raises(ConfigError, match="`env` is read by name only") as caught:
        render(template, names)
    assert "hf_abc" not in str(caught.value)


@pytest.mark.parametrize("template", ["{{ env.HF_TOKEN }}", "{{ env['HF_TOKEN'] }}", "x{{ env.get('HF_TOKEN') }}"])
def test_a_secret_of_the_environment_is_no_value(template: str) -> None:
    names: dict[str, Any] = {"env": EnvironmentScope({"HF_TOKEN": "hf_abc"})}
    names["vars"] = Scope("vars", {"all": template}, names)
    for text in (template, "{{ vars.all }}"):
        with pytest.raises(
            ConfigError, match=r"env\.HF_TOKEN looks like a secret: list it under `secrets: \[HF_TOKEN\]`"
        ):
            render(text, names)


def test_a_text_of_the_environment_is_no_template() -> None:
    assert render("{{ env.PS1 }}", {"env": EnvironmentScope({"PS1": "{{ 1 + 1 }}"})}) == "{{ 1 + 1 }}"


@pytest.mark.parametrize(
    ("name", "secret"),
    [("HF_TOKEN", True), ("HUGGING_FACE_HUB_TOKEN", True), ("WANDB_API_KEY", True), ("AWS_SECRET_ACCESS_KEY", True),
     ("OPENAI_API_KEY", True), ("MLFLOW_TRACKING_PASSWORD", True), ("DB_PASSWD", True), ("github_token", True),
     ("APIKEY", True), ("SSH_KEY", True), ("GOOGLE_APPLICATION_CREDENTIALS", True),
     ("TOKENIZERS_PARALLELISM", False), ("MAX_TOKENS", False), ("KEYBOARD", False), ("NCCL_DEBUG", False)],
)  # fmt: skip
def test_secrets_are_known_by_their_names(name: str, secret: bool) -> None:
    assert is_secret(name) is secret
