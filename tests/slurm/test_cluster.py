"""Cluster profiles: those that come along, the user's own, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neobert.config import ConfigError
from slurm.cluster import load_profile, user_profiles
from slurm.recipe import bundled

Write = Callable[[str, str], Path]


@pytest.mark.parametrize("path", sorted(bundled("clusters").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_that_comes_along_can_be_read(work: Path, path: Path) -> None:
    assert load_profile(path.stem).description


def test_the_users_own_profile_goes_before_one_that_comes_along(work: Path) -> None:
    user_profiles().mkdir(parents=True)
    (user_profiles() / "a100.yaml").write_text("backend: sbatch\npartition: mine\n")
    assert load_profile("a100").partition == "mine"


@pytest.mark.parametrize("name", ["site.yaml", "site.yml", "site.json"])
def test_a_file_is_known_by_its_ending(write: Write, name: str) -> None:
    write(name, '{"backend": "local", "description": "mine"}')
    assert load_profile(name).description == "mine"


def test_a_profile_may_be_named_by_its_path_from_home(
    write: Write, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(work))
    write("site.yaml", "backend: local\ndescription: mine\ncontainer: {binds: [~/data]}\n")
    profile = load_profile("~/site.yaml")
    assert (profile.description, profile.container.binds) == ("mine", [f"{work}/data"])


def test_a_profile_may_use_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/fast")
    path = write("c.yaml", 'backend: local\nscratch: "{{ env.PLACE }}/me"\n')
    assert load_profile(str(path)).scratch == "/fast/me"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backend: pbs", r"c\.yaml:1: backend: expected 'sbatch', 'submitit' or 'local', found 'pbs'"),
        ("partition: x", "backend: is required"),
        ("backend: sbatch\npartitoin: x", r"c\.yaml:2: partitoin: unknown key; did you mean 'partition'"),
        ("backend: sbatch\npartition: a b", "cannot stand in a #SBATCH line"),
        ("backend: sbatch\nsbatch: ['--comment=x']", "jobs are submitted with a --comment of their own; leave it out"),
        ("backend: sbatch\nsbatch: ['--arr=0-3']", "with a --array of their own; set `grid` and `array`"),
        ("backend: sbatch\nsbatch: ['--export NONE']", "with a --export of their own; set `env`"),
        ("backend: sbatch\nsbatch: ['--no-requeue']", "set `max_requeues` of the profile"),
        ("backend: sbatch\nsbatch: ['--ntasks-per-node=2']", "set `resources.procs_per_node` of the recipe"),
        ("backend: local\nenv: {APPTAINERENV_A: b}", "reaches the container by its plain name: A"),
        ("backend: local\nscratch: fast/me", "expected an absolute directory"),
        ("backend: local\nscratch: ~/fast", "expected an absolute directory"),
        ("backend: sbatch\nsbatch: ['mail']", "expected one option of sbatch"),
        ('backend: sbatch\nsbatch: ["--comment=a\\n#SBATCH --uid=0"]', "expected one option of sbatch"),
        ('backend: local\nenv: {X: "a\\0b"}', "NUL|is not valid YAML"),
        ("backend: local\nscratch: '{{ env.NOT_SET_ANYWHERE }}'", "'env.NOT_SET_ANYWHERE' is not defined"),
        ("3", "a cluster profile is a mapping"),
    ],
)
def test_a_wrong_profile_is_told_with_file_and_line(write: Write, text: str, message: str) -> None:
    path = write("c.yaml", text)
    with pytest.raises(ConfigError, match=message):
        load_profile(str(path))


def test_options_of_sbatch_that_are_a_sites_own_are_taken(write: Write) -> None:
    options = ["--mail-type=FAIL", "--exclusive", "--gpus-per-task=1", "--exclude=n[1-2]", "--reservation x", "--nice"]
    path = write("c.yaml", f"backend: sbatch\nscratch: /l/$SLURM_JOB_ID\nsbatch: {options}\n")
    assert load_profile(str(path)).sbatch == options
    assert load_profile(str(write("d.yaml", "backend: local\nscratch: $SLURM_TMPDIR\n"))).scratch == "$SLURM_TMPDIR"


def test_an_unknown_name_suggests_a_known_one(work: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no cluster profile 'a10'.*did you mean 'a100'"):
        load_profile("a10")
