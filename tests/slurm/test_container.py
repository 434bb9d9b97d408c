"""What enters a container, and what is said of a node on which none can be entered.

Apptainer is a stand-in here that writes down what it was called with; tests/survival has the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from neobert.config import ConfigError
from slurm.cluster import Container
from slurm.container import Entry, bind_words, enter_script, expand_on_node
from tests.no_flock import COMMAND as NO_FLOCK

STAND_IN = """#!{python}
import json, os, sys
if sys.argv[1:] == ["--version"]:
    print({version!r})
else:
    json.dump({{"argv": sys.argv[1:], "env": dict(os.environ)}}, open({out!r}, "w"))
"""
Enter = Callable[..., tuple[subprocess.CompletedProcess[str], dict[str, Any]]]


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    image = tmp_path / "images" / "n.sif"
    image.parent.mkdir()
    image.write_bytes(b"x" * 100)
    return Entry(
        title="t", container=Container(runtime=str(tmp_path / "apptainer")), image=image, workdir=tmp_path,
        binds=(str(tmp_path),), code=tmp_path / "code.zip", names=("MINE",), secrets=(),
        scratch=str(tmp_path / "scratch"), modules=(), gpus=0, threads=3,
    )  # fmt: skip


@pytest.fixture
def enter(tmp_path: Path) -> Enter:
    """Runs the script of an entry with a program of some version; gives how it ended, and what the program saw."""

    def run(
        entry: Entry, *command: str, version: str = "apptainer version 1.4.5", env: dict[str, str] | None = None
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        out, program, script = tmp_path / "out.json", tmp_path / "apptainer", tmp_path / "enter.sh"
        out.unlink(missing_ok=True)
        program.write_text(STAND_IN.format(python=sys.executable, version=version, out=str(out)))
        program.chmod(0o755)
        script.write_text(enter_script(entry))
        environment = {"PATH": os.environ["PATH"], "SLURMD_NODENAME": "node7", **(env or {})}
        words = ["bash", str(script), *(command or ("true",))]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60)
        return done, json.loads(out.read_text()) if out.exists() else {}

    return run


def passed(seen: dict[str, Any], prefix: str = "APPTAINERENV_") -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in seen["env"].items() if key.startswith(prefix)}


def test_only_what_is_listed_passes_and_the_rest_of_the_environment_stays_outside(entry: Entry, enter: Enter) -> None:
    there = {
        "SLURM_PROCID": "3", "RANK": "3", "NCCL_DEBUG": "WARN", "HF_HOME": "/nowhere", "MINE": "a b", "MYLIB_X": "1",
        "HF_TOKEN": "t", "NCCL_API_KEY": "k", "SLURM_JWT": "j", "CONDA_PREFIX": "/c", "EDITOR": "vi",
        "CUDA_HOME": "/usr/local/cuda", "CUDA_PATH": "/c", "CUDA_VISIBLE_DEVICES": "1", "NEOBERT_CACHE": "/nowhere/n",
    }  # fmt: skip
    done, seen = enter(replace(entry, container=entry.container.model_copy(update={"env": ["MYLIB_*"]})), env=there)
    assert done.returncode == 0, done.stderr
    names = passed(seen)
    assert {key: names[key] for key in ("SLURM_PROCID", "RANK", "NCCL_DEBUG", "HF_HOME", "MINE", "MYLIB_X")} == {
        "SLURM_PROCID": "3", "RANK": "3", "NCCL_DEBUG": "WARN", "HF_HOME": "/nowhere", "MINE": "a b", "MYLIB_X": "1",
    }  # fmt: skip
    assert (names["CUDA_VISIBLE_DEVICES"], names["NEOBERT_CACHE"]) == ("1", "/nowhere/n")
    outside = {"HF_TOKEN", "NCCL_API_KEY", "SLURM_JWT", "CONDA_PREFIX", "EDITOR", "PATH", "CUDA_HOME", "CUDA_PATH"}
    assert not outside & set(names)
    assert names["PYTHONPATH"] == str(entry.code)
    assert (names["PYTHONNOUSERSITE"], names["OMP_NUM_THREADS"]) == ("1", "3")
    assert {"--cleanenv", "--no-eval"} <= set(seen["argv"])


def test_the_version_and_not_the_name_tells_which_program_it_is(entry: Entry, enter: Enter) -> None:
    _, seen = enter(entry, version="singularity-ce version 4.1.3", env={"MINE": "x"})
    assert passed(seen, "SINGULARITYENV_")["MINE"] == "x"
    assert not passed(seen), "the other's variables would be warned of"
    done, _ = enter(entry, version="docker 1.0")
    assert done.returncode == 2
    assert "neither Apptainer nor SingularityCE: docker 1.0" in done.stderr


def test_the_images_own_code_is_used_where_none_is_given(entry: Entry, enter: Enter) -> None:
    _, seen = enter(replace(entry, code=None), env={"PYTHONPATH": "/mine"})
    assert "PYTHONPATH" not in passed(seen)


@pytest.mark.parametrize(("gpu", "option"), [("nv", "--nv"), ("rocm", "--rocm"), ("none", None)])
def test_the_option_for_gpus_stands_only_where_gpus_are_asked_for(
    entry: Entry, enter: Enter, gpu: str, option: str | None
) -> None:
    container = entry.container.model_copy(update={"gpu": gpu})
    _, seen = enter(replace(entry, container=container, gpus=4))
    assert [word for word in ("--nv", "--rocm") if word in seen["argv"]] == ([option] if option else [])
    _, seen = enter(replace(entry, container=container))
    assert "--nv" not in seen["argv"]


def test_variables_for_containers_of_the_shell_around_do_not_enter(entry: Entry, enter: Enter) -> None:
    there = {"APPTAINERENV_LEAK": "1", "SINGULARITYENV_LEAK": "2", "APPTAINERENV_HF_TOKEN": "t", "APPTAINER_BIND": "/x"}
    done, seen = enter(entry, env=there)
    assert done.returncode == 0, done.stderr
    assert not {"LEAK", "HF_TOKEN"} & {*passed(seen), *passed(seen, "SINGULARITYENV_")}
    assert seen["env"]["APPTAINER_BIND"] == "/x", "how a site configures Apptainer stays"


def test_what_the_recipe_sets_goes_before_what_the_script_would_set(entry: Entry, enter: Enter, tmp_path: Path) -> None:
    there = {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": ""}
    _, seen = enter(replace(entry, names=tuple(there)), env=there)
    assert {key: passed(seen)[key] for key in there} == there
    binds = [value for word, value in pairwise(seen["argv"]) if word == "--bind"]
    assert binds.count(str(tmp_path)) == 2, "the directory of TMPDIR is there, beside that of the entry itself"
    _, seen = enter(entry, env=there)
    assert (passed(seen)["TMPDIR"], passed(seen)["PYTHONUNBUFFERED"]) == (entry.scratch, "1")


@pytest.mark.parametrize("missing", ["secret", "variable"])
def test_what_is_the_fault_of_no_node_is_a_plain_failure(
    entry: Entry, enter: Enter, tmp_path: Path, missing: str
) -> None:
    broken, said = {
        "secret": (replace(entry, secrets=("MY_TOKEN",)), "the secret MY_TOKEN is not in the environment"),
        "variable": (replace(entry, scratch="/l/$NOT_SET_HERE"), "NOT_SET_HERE is not set, but the scratch"),
    }[missing]
    trial = tmp_path / "trial"
    trial.mkdir()
    done, seen = enter(broken, env={"RECIPE_TRIAL": str(trial), "RECIPE_ATTEMPT": "2"})
    assert not seen, "nothing was started"
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(trial.iterdir()), "and no node is blamed"


@pytest.mark.parametrize("missing", ["image", "program", "scratch"])
def test_a_node_that_is_not_fit_is_named_in_the_message_and_in_a_record(
    entry: Entry, enter: Enter, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "file").touch()
    broken, said = {
        "image": (replace(entry, image=tmp_path / 'no "such".sif'), f'there is no image {tmp_path}/no "such".sif'),
        "program": (replace(entry, container=Container(runtime="/no/apptainer")), "there is no working /no/apptainer"),
        "scratch": (replace(entry, scratch=str(tmp_path / "file")), "cannot write to"),
    }[missing]
    trial = tmp_path / "trial"
    trial.mkdir()
    done, seen = enter(broken, env={"RECIPE_TRIAL": str(trial), "RECIPE_ATTEMPT": "2"})
    assert not seen, "nothing was started"
    assert said in done.stderr
    assert done.returncode == 87
    record = json.loads((trial / "preflight.json").read_text())
    assert (record["attempt"], record["nodes"]) == (2, ["node7"])
    assert record["message"].startswith("node7: ")
    assert said in record["message"]
    assert record["message"] == f"node7: {record['reason']}", "the same words on every node"
    assert [path.name for path in trial.iterdir()] == ["preflight.json"]


def test_the_image_is_copied_to_the_node_once_and_again_when_it_changes(
    entry: Entry, enter: Enter, tmp_path: Path
) -> None:
    entry = replace(entry, container=entry.container.model_copy(update={"copy_image": True}))
    copies = set()
    for _ in range(2):
        _, seen = enter(entry)
        copies.add(seen["argv"][-2])
    (copy,) = copies
    assert copy.startswith(str(tmp_path / "scratch"))
    assert Path(copy).read_bytes() == entry.image.read_bytes()
    entry.image.write_bytes(b"y" * 200)
    _, seen = enter(entry)
    assert seen["argv"][-2] not in copies
    assert Path(seen["argv"][-2]).read_bytes() == b"y" * 200


def test_what_a_job_that_was_killed_left_of_a_copy_is_removed(entry: Entry, enter: Enter, tmp_path: Path) -> None:
    (copies := tmp_path / "scratch" / f"recipe-{os.getuid()}" / "images").mkdir(parents=True)
    cut = copies / "older-1-2.sif.partial"
    cut.touch()
    enter(replace(entry, container=entry.container.model_copy(update={"copy_image": True})))
    assert not cut.exists()
    assert len(list(copies.glob("*.sif"))) == 1


def test_without_flock_copies_at_the_same_time_do_not_spoil_each_other(
    entry: Entry, enter: Enter, tmp_path: Path
) -> None:
    entry.image.write_bytes(bytes(range(100)))
    enter(entry)  # writes the program
    entry = replace(entry, container=entry.container.model_copy(update={"copy_image": True}))
    (tmp_path / "enter.sh").write_text(enter_script(entry))
    (tmp_path / "bin").mkdir()
    all_began = 'touch "$0.$$"; while [ "$(ls "$0".* | wc -l)" -lt 3 ]; do sleep 0.02; done'
    (tmp_path / "bin/cp").write_text(f'#!/bin/bash\n{{ head -c 50 "$2"; {all_began}; tail -c 50 "$2"; }} >"$3"\n')
    (tmp_path / "bin/cp").chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    words = [*NO_FLOCK, "bash", str(tmp_path / "enter.sh"), "true"]
    processes = [subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=60)[1] for process in processes] == [b""] * 3
    (copy,) = (tmp_path / "scratch").rglob("*.sif*")
    assert copy.read_bytes() == entry.image.read_bytes()


@pytest.mark.parametrize("trap", ["link", "of another user", "writable"])
def test_what_somebody_has_put_in_the_place_of_the_nodes_room_is_not_used(
    entry: Entry, enter: Enter, tmp_path: Path, trap: str, request: pytest.FixtureRequest
) -> None:
    room, mine = tmp_path / "scratch" / f"recipe-{os.getuid()}", tmp_path / "mine"
    room.parent.mkdir()
    (mine / "images").mkdir(parents=True)
    precious = mine / "images" / "precious.partial"
    precious.write_text("precious")
    room.symlink_to(mine) if trap == "link" else room.mkdir(mode=0o755)
    if trap == "of another user":
        request.getfixturevalue("root")
        os.chown(room, 65534, 65534)
    if trap == "writable":
        room.chmod(0o777)
    done, seen = enter(replace(entry, container=entry.container.model_copy(update={"copy_image": True})))
    if trap == "writable":  # the user's own: nobody else has the right any longer
        assert (done.returncode, room.stat().st_mode & 0o777) == (0, 0o755), done.stderr
        return
    assert (done.returncode, seen) == (87, {})
    assert ("is a link, which somebody has put there" if trap == "link" else "belongs to somebody else") in done.stderr
    assert precious.read_text() == "precious"
    assert [path.name for path in mine.rglob("*")] == ["images", "precious.partial"]


def test_a_scratch_in_which_everybody_can_rename_everything_is_refused(
    entry: Entry, enter: Enter, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    done, seen = enter(entry)
    assert (done.returncode, seen) == (2, {})
    assert f"others can replace what lies in {scratch} (mode 0777 without the sticky bit)" in done.stderr
    done, seen = enter(replace(entry, scratch=None), env={"TMPDIR": str(scratch)})
    assert done.returncode == 0
    assert f"/tmp/recipe-{os.getuid()}" in seen["argv"], "as of a node that has no such directory"
    scratch.chmod(0o1777)
    assert enter(entry)[0].returncode == 0


def test_a_temporary_directory_of_another_machine_is_not_taken_for_the_scratch(entry: Entry, enter: Enter) -> None:
    """sbatch hands on the TMPDIR of a login session, which a node may not have; that is no fault of the node's."""
    done, seen = enter(replace(entry, scratch=None), env={"TMPDIR": "/proc/no/such"})
    assert done.returncode == 0, done.stderr
    assert f"/tmp/recipe-{os.getuid()}" in seen["argv"]


def test_a_sandbox_is_not_copied_and_that_is_said(entry: Entry, enter: Enter, tmp_path: Path) -> None:
    (sandbox := tmp_path / "sandbox").mkdir()
    container = entry.container.model_copy(update={"copy_image": True})
    done, seen = enter(replace(entry, container=container, image=sandbox))
    assert done.returncode == 0
    assert seen["argv"][-2] == str(sandbox)
    assert f"{sandbox} is a directory, and not copied" in done.stderr


def test_caches_of_one_image_are_not_those_of_another(entry: Entry, enter: Enter) -> None:
    _, first = enter(entry)
    entry.image.write_bytes(b"y" * 200)
    _, second = enter(entry)
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR"):
        assert passed(first)[name] != passed(second)[name]
    _, own = enter(entry, env={"TRITON_CACHE_DIR": "/mine"})
    assert passed(own)["TRITON_CACHE_DIR"] == "/mine"


def test_printing_names_secrets_and_shows_none(entry: Entry, enter: Enter) -> None:
    secret = replace(entry, secrets=("MY_TOKEN",))
    there = {"MY_TOKEN": "hidden", "https_proxy": "http://me:hidden@proxy", "HTTP_PROXY": "http://me:hidden@proxy"}
    done, seen = enter(secret, "run", "a b", env={**there, "RECIPE_VERB": "print"})
    assert not seen
    assert "hidden" not in done.stdout
    words = done.stdout.split(" ")
    for name in there:  # assignments before the command, which no list of processes shows
        assert words.index(f'APPTAINERENV_{name}="${name}"') < words.index("exec")
    assert done.stdout.rstrip().endswith("run a\\ b")
    pasted = subprocess.run(["bash", "-c", done.stdout], env={"PATH": os.environ["PATH"], **there}, timeout=60)
    assert pasted.returncode == 0
    seen = json.loads((entry.workdir / "out.json").read_text())
    assert {name: passed(seen)[name] for name in there} == there
    assert seen["argv"][-2:] == ["run", "a b"]


def test_directories_inside_of_others_are_not_bound_twice() -> None:
    inner = [Path("/a/b/c"), Path("/a/b"), Path("/x"), Path("/x")]
    assert bind_words(inner, ["/data:/data:ro", "/x"]) == ("/x", "/a/b", "/data:/data:ro")
    with pytest.raises(ConfigError, match="splits it at ':'"):
        bind_words([Path("/a:b")], [])


@pytest.mark.parametrize("path", ["/", "/opt", "/opt/neobert", "/opt/neobert/lib"])
def test_nothing_is_bound_over_the_packages_of_the_image(path: str) -> None:
    assert bind_words([Path("/opt/other")], []) == ("/opt/other",)
    with pytest.raises(ConfigError, match=r"it would cover the image's packages in /opt/neobert; submit from another"):
        bind_words([Path(path)], [])


def test_a_directory_behind_a_link_is_bound_where_it_lies_as_well(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert bind_words([tmp_path / "link"], []) == (str(tmp_path / "link"), str(tmp_path / "real"))


def test_variables_of_the_scratch_directory_are_the_nodes_and_the_rest_is_literal() -> None:
    word = expand_on_node("/local/$JOB/it's ${USER_}x;y")
    done = subprocess.run(
        ["bash", "-uc", f"printf %s {word}"], env={"JOB": "1 2", "USER_": "$(id)"}, capture_output=True, text=True
    )
    assert done.stdout == "/local/1 2/it's $(id)x;y"
