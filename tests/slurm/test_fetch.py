"""`recipe fetch`: what of a recipe is on the hub, and how it is fetched. tests/neobert/fetch fetches for real."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.neobert.fetch.hub import Hub

Recipe = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[[str, str], Path]

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

ON_HUB = """
    name: two
    stages:
      shards:
        task: preprocess
        config:
          data: {hub: allenai/c4, hub_config: en, split: validation}
          tokenizer: {name_or_path: google-bert/bert-base-uncased, revision: v1}
          output: shards
      scores:
        task: glue
        needs: [shards]
        config:
          data: {hub: nyu-mll/glue}
          model: {name_or_path: chandar-lab/NeoBERT, tokenizer: shards/tokenizer}
        grid: {task_name: [rte, mrpc], seed: [1, 2]}
"""
SHARDS = ["--text", "allenai/c4:en:validation", "--tokenizer", "google-bert/bert-base-uncased@v1"]
SCORES = ["--dataset", "nyu-mll/glue:mrpc", "--dataset", "nyu-mll/glue:rte", "--model", "chandar-lab/NeoBERT"]
TELL = """#!{python}
import json, os, sys
if sys.argv[1:] == ["--version"]:
    print("apptainer version 1.4.5")
else:
    print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}))
sys.exit({code})
"""


def program(path: Path, code: int = 0) -> Path:
    """One that tells how it was called."""
    path.write_text(TELL.format(python=sys.executable, code=code))
    path.chmod(0o755)
    return path


@pytest.fixture
def site(work: Path) -> Path:
    """A profile with a Python that tells how it was called."""
    profile = work / "site.yaml"
    settings = {
        "backend": "sbatch",
        "python": str(program(work / "python")),
        "env": {"HF_HOME": str(work / "a" / "hf")},
    }
    profile.write_text(json.dumps(settings))
    return profile


def pairs(words: list[str]) -> list[tuple[str, str]]:
    return sorted(zip(words[::2], words[1::2], strict=True))


def test_everything_on_the_hub_is_fetched_once_as_jobs_would(
    run_recipe: Recipe, write: Write, site: Path, work: Path
) -> None:
    done = run_recipe("fetch", write("two.yaml", ON_HUB), "--cluster", site, env={"RANK": "1"})
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["argv"][:3] == ["-m", "neobert", "fetch"]
    assert pairs(seen["argv"][3:]) == pairs(SHARDS + SCORES)
    assert seen["env"]["HF_HOME"] == str(work / "a" / "hf")
    assert seen["env"]["PYTHONPATH"].endswith(".zip")
    assert "RANK" not in seen["env"]


def test_a_recipe_that_predicts_brings_each_test_set(run_recipe: Recipe, site: Path) -> None:
    done = run_recipe("fetch", RECIPES / "glue" / "bert-base.yaml", "--cluster", site, "--set", "image=null")
    assert done.returncode == 0, done.stderr
    names = [name for _, name in pairs(json.loads(done.stdout)["argv"][3:])]
    tasks = ["ax", "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
    assert names == [*(f"nyu-mll/glue:{task}" for task in tasks), "google-bert/bert-base-uncased"]


def test_directories_are_left_out(run_recipe: Recipe, write: Write, site: Path, work: Path) -> None:
    (work / "chandar-lab" / "NeoBERT").mkdir(parents=True)
    done = run_recipe("fetch", write("two.yaml", ON_HUB), "--cluster", site, "--verify")
    assert json.loads(done.stdout)["argv"][3] == "--verify"
    assert pairs(json.loads(done.stdout)["argv"][4:]) == pairs(SHARDS + SCORES[:4])


def test_nothing_to_fetch_is_fine(run_recipe: Recipe, recipe: Path, work: Path) -> None:
    done = run_recipe("fetch", recipe)
    assert (done.returncode, done.stdout) == (0, "nothing to fetch: the recipe names nothing on the hub\n")
    assert not (work / "runs").exists()


def test_the_command_can_be_printed(run_recipe: Recipe, write: Write, site: Path, work: Path) -> None:
    done = run_recipe("fetch", write("two.yaml", ON_HUB), "--cluster", site, "--dry-run")
    words = shlex.split(done.stdout)
    assert words[:2] == ["env", f"HF_HOME={work / 'a' / 'hf'}"]
    assert words[words.index("-m") : words.index("-m") + 3] == ["-m", "neobert", "fetch"]
    pasted = subprocess.run(["bash", "-c", done.stdout], capture_output=True, text=True, check=True)
    assert pairs(json.loads(pasted.stdout)["argv"][3:]) == pairs(SHARDS + SCORES)


def test_modules_are_loaded_first(run_recipe: Recipe, write: Write, site: Path, work: Path) -> None:
    site.write_text(json.dumps({**json.loads(site.read_text()), "modules": ["python/3.11"]}))
    missing = run_recipe("fetch", write("two.yaml", ON_HUB), "--cluster", site)
    assert (missing.returncode, "recipe: cannot load the module python/3.11" in missing.stderr) == (2, True)
    module = {"BASH_FUNC_module%%": '() { export LOADED="$*"; }'}
    done = run_recipe("fetch", write("two.yaml", ON_HUB), "--cluster", site, env=module)
    assert json.loads(done.stdout)["env"]["LOADED"] == "load python/3.11"


@pytest.fixture
def container(work: Path, site: Path) -> Path:
    (work / "n.sif").touch()
    runtime = {"container": {"runtime": str(program(work / "apptainer"))}}
    site.write_text(json.dumps({**json.loads(site.read_text()), **runtime}))
    return site


def test_an_image_fetches_for_itself(run_recipe: Recipe, write: Write, container: Path, work: Path) -> None:
    words = ("--cluster", container, "--set", "image=n.sif", "--set", "resources={gpus_per_node: 2, cpus: 2}")
    done = run_recipe("fetch", write("two.yaml", ON_HUB), *words)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    inner = seen["argv"][seen["argv"].index(str(work / "n.sif")) + 1 :]
    assert inner[:4] == ["python3", "-m", "neobert", "fetch"]
    assert pairs(inner[4:]) == pairs(SHARDS + SCORES)
    assert seen["env"]["APPTAINERENV_HF_HOME"] == str(work / "a" / "hf")
    assert str(work / "a" / "hf") in seen["argv"], "it is made, and so it is bound"
    assert "--nv" not in seen["argv"], "a login node has no GPU"
    printed = run_recipe("fetch", work / "two.yaml", *words, "--dry-run")
    assert f" {work / 'n.sif'} python3 -m neobert fetch --" in printed.stdout


def test_images_and_environments_of_their_own_are_fetched_for_one_by_one(
    run_recipe: Recipe, write: Write, container: Path, work: Path
) -> None:
    (work / "m.sif").touch()
    words = ("--cluster", container, "--set", "stages.shards.image=n.sif", "--set", "stages.scores.image=m.sif")
    done = run_recipe("fetch", write("two.yaml", ON_HUB), *words)
    calls = [json.loads(line)["argv"] for line in done.stdout.splitlines()]
    assert [pairs(argv[argv.index("fetch") + 1 :]) for argv in calls] == [pairs(SHARDS), pairs(SCORES)]
    assert [str(work / name) in argv for name, argv in zip(("n.sif", "m.sif"), calls, strict=True)] == [True, True]


def test_the_exit_code_is_that_of_the_first_that_fails(
    run_recipe: Recipe, write: Write, site: Path, work: Path
) -> None:
    program(work / "python", code=2)
    done = run_recipe("fetch", write("two.yaml", ON_HUB), "--cluster", site, "--set", "stages.scores.env={X: '1'}")
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1


def test_in_the_real_image_it_lands_in_the_cache_of_the_jobs(
    run_recipe: Recipe, write: Write, cpu_image: Path, work: Path
) -> None:
    home = work / "shared" / "hf"
    runtime = {"runtime": "apptainer", "flags": ["--no-mount", "tmp"]}  # so that only what is bound is seen
    env = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    profile = write("real.yaml", json.dumps({"backend": "sbatch", "container": runtime, "env": env}))
    config = {"task_name": "rte", "data": {"generated": 8}, "model": {"name_or_path": "tiny/model"}}
    recipe = write(
        "real-recipe.yaml", json.dumps({"name": "r", "task": "glue", "image": str(cpu_image), "config": config})
    )
    hub = Hub()
    hub.add("models", "tiny/model", {"config.json": b"{}", "model.safetensors": b"weights" * 5000})
    with hub.serving():
        done = run_recipe("fetch", recipe, "--cluster", profile, env={"HF_ENDPOINT": hub.endpoint})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model tiny/model at ")
    assert len(list(home.glob("hub/models--tiny--model/snapshots/*/model.safetensors"))) == 1
