"""Whatever a recipe, a profile or a path holds reaches the process byte for byte, or is refused with an error.

The scripts are run by a real bash; what the process got, it writes down itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neobert.config import ConfigError, dump_yaml
from slurm.cluster import Container, Profile
from slurm.container import Entry, bind_words, enter_script
from slurm.plan import make_plan
from slurm.recipe import load_recipe
from slurm.render import Job, chunks, render
from slurm.schema import OURS

NASTY = [
    "a b",
    "-n",
    "--",
    "$HOME",
    "$(touch pwned)",
    "`id`",
    "a\nb",
    "a\\b",
    "it's",
    'say "hi"',
    "*",
    "~",
    "#x",
    "!x",
    ";",
    "&",
    "{{",
    "ä€😀",
    "\t",
    "%j",
    "a\n",
    "\r",
]

# Every text that can be in a file, an argument or the environment at all.
texts = st.one_of(
    st.sampled_from(NASTY), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
)
names = texts.filter(lambda text: text and "/" not in text and text not in (".", "..") and len(text.encode()) < 100)

TELL = """#!{python}
import json, os, sys
from pathlib import Path
line = Path(sys.argv[sys.argv.index("--manifest") + 1]).read_text(encoding="utf-8").split("\\n")[0]
told = {{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "config": json.loads(line)["config"]}}
Path({out!r}).write_text(json.dumps(told))
(Path(sys.argv[sys.argv.index("--output-dir") + 1]) / "result.json").write_text("{{}}")
"""

RECIPE: dict[str, Any] = {
    "name": "q",
    "task": "glue",
    "config": {"task_name": "rte", "model": {"allow_random_weights": True}, "data": {"generated": 5}},
}


def run_job(
    top: Path, run: Path, workdir: Path, recipe: dict[str, Any], profile: dict[str, Any], python: Path
) -> dict[str, Any]:
    """Renders the recipe's script, runs it in bash, and returns what the trial's process saw."""
    out = top / "out.json"
    python.write_text(TELL.format(python=sys.executable, out=str(out)))
    python.chmod(0o755)
    file = top / "recipe.yaml"
    file.write_text(dump_yaml(recipe))
    plan = make_plan(load_recipe(file), "local", Profile.model_validate({"backend": "local", **profile}))
    job = Job(
        recipe=plan.name, stage=plan.stages[0], profile=plan.profile, backend="local", trials=1, run=run,
        directory=run / "stages/q/0", needs=None, code=run / "code/x.zip", workdir=workdir, python=str(python),
    )  # fmt: skip
    job.directory.mkdir(parents=True)
    (job.directory / "trials.jsonl").write_text(plan.stages[0].trials[0].manifest_line(run), encoding="utf-8")
    script = top / "job.sh"
    script.write_text(render(job, chunks(job)[0]), encoding="utf-8", newline="")
    environment = {"PATH": os.environ["PATH"], "RECIPE_JOB_ID": "local-1", "LANG": "C.UTF-8"}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(
    value=texts, model=texts.filter(bool),
    key=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True).filter(lambda key: key not in OURS),
)  # fmt: skip
@example(value="$(touch pwned)", model="a\nb", key="run")
@example(value="x", model="\u2028\x85", key="UID")
def test_values_of_the_environment_and_of_configs_arrive_byte_for_byte(value: str, model: str, key: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        # `{{` would be Jinja; a user who means it literally writes it as Jinja's own raw block.
        raw = lambda text: "{% raw %}" + text + "{% endraw %}" if "{" in text else text  # noqa: E731
        config = RECIPE["config"] | {"model": {"name_or_path": raw(model)}}
        recipe = RECIPE | {"config": config, "env": {key: raw(value)}}
        site = f"SITE{key}"
        seen = run_job(top, top / "run", top, recipe, {"env": {site: value}}, top / "python")
        assert seen["env"][key] == value
        assert seen["env"][site] == value
        assert seen["config"]["model"]["name_or_path"] == model
        assert not (top / "pwned").exists()


@few
@given(names, names)
@example("-n", "a\n")
def test_paths_of_the_run_the_interpreter_and_the_working_directory_arrive_byte_for_byte(run: str, work: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        workdir = top / "w" / work
        workdir.mkdir(parents=True)
        (top / "bin").mkdir()
        seen = run_job(top, top / "r" / run, workdir, RECIPE, {}, top / "bin" / work)
        assert seen["cwd"] == str(workdir)
        assert seen["argv"][:3] == ["-m", "neobert", "trial"]
        options = dict(zip(seen["argv"][3::2], seen["argv"][4::2], strict=True))
        assert options["--output-dir"].startswith(str(top / "r" / run) + "/trials/")
        assert seen["env"]["PYTHONPATH"] == str(top / "r" / run / "code/x.zip")


FAKE_APPTAINER = """#!{python}
import json, os, sys
from pathlib import Path
if sys.argv[1:] == ["--version"]:
    print("apptainer version 1.4.5")
else:
    Path({out!r}).write_text(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}))
"""


@few
@given(flags=st.lists(texts, max_size=4), image=names, value=texts, secret=texts)
@example(flags=["$(id)"], image="a b", value="$HOME", secret="'\"\\$(id)`id`\n")
def test_words_for_the_container_arrive_byte_for_byte_or_are_refused(
    flags: list[str], image: str, value: str, secret: str
) -> None:
    """Apptainer itself is a stand-in here; that it does not evaluate anything is shown with the real one elsewhere."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        program, out, work = top / "apptainer", top / "out.json", top / "work"
        program.write_text(FAKE_APPTAINER.format(python=sys.executable, out=str(out)))
        program.chmod(0o755)
        work.mkdir()
        (work / image).write_text("")
        try:
            entry = Entry(
                title="q", container=Container(runtime=str(program), flags=flags), image=work / image, workdir=top,
                binds=bind_words([work / image], []), code=top / "x.zip", names=("MINE",), secrets=("TOKEN",),
                scratch=str(top / "scratch"), modules=(), gpus=1, threads=2,
            )  # fmt: skip
        except ConfigError as error:
            assert set(image) & set(":,\\"), error
            return
        (top / "enter.sh").write_text(enter_script(entry), encoding="utf-8", newline="")
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MINE": value, "TOKEN": secret, "OTHER": "x"}
        words = ["bash", str(top / "enter.sh"), "run", *flags]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        seen = json.loads(out.read_text())
        assert seen["argv"][-2 - len(flags) :] == [str(work / image), "run", *flags]
        assert ["--nv", *flags] == [word for word in seen["argv"] if word in ("--nv", *flags)][: 1 + len(flags)]
        assert seen["env"]["APPTAINERENV_MINE"] == value
        assert "APPTAINERENV_OTHER" not in seen["env"]
        assert "APPTAINERENV_TOKEN" not in seen["env"], "only through the file"
        assert not list((top / "scratch").rglob("secrets*")), "and that is gone"


def test_a_nul_character_is_refused() -> None:
    for where in ({"env": {"A": "x\0y"}}, {"env": {"A-B": "x"}}):
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "r.yaml"
            file.write_text(json.dumps(RECIPE | where))
            try:
                load_recipe(file)
            except ConfigError as error:
                assert "NUL" in str(error) or "no name of an environment variable" in str(error)
            else:
                raise AssertionError("it was accepted")
