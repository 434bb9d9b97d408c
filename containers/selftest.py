"""%test of both images: imports every package of the stack, compiles a line of C++, and trains for two steps.

usage: selftest.py EXTRAS     (comma-separated: what of the project's extras the image holds)
"""

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

TRAIN = """task_name=rte data.generated=64 data.max_length=32 model.hidden_size=32 model.num_hidden_layers=1
model.num_attention_heads=2 model.intermediate_size=64 model.allow_random_weights=true trainer.max_steps=2
trainer.per_device_train_batch_size=4"""


def modules(extras: set[str]) -> list[str]:
    """The importable modules of all packages that the project asks for by itself or through `extras`."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    provided: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for name in distributions:
            provided.setdefault(canonicalize_name(name), set()).add(module)
    wanted = map(Requirement, importlib.metadata.requires("neobert-slurm") or ())
    names = [
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    ]
    missing = [name for name in names if name not in provided]
    if missing:
        sys.exit(f"these packages are missing: {', '.join(missing)}")
    return sorted(module for name in names for module in provided[name] if _is_public(module))


def _is_public(module: str) -> bool:
    """A wheel's list of its modules may hold parts of packages, such as `_xxhash`, which are none by themselves."""
    return module.isidentifier() and not module.startswith("_")


def main() -> None:
    names = [*modules(set(sys.argv[1].split(","))), "slurm.cli", "neobert.cli"]
    for name in names:
        importlib.import_module(name)
    print(f"imported {len(names)} packages: {', '.join(names)}")

    missing = [program for program in ("c++", "ninja", "neobert", "recipe") if shutil.which(program) is None]
    if missing:
        sys.exit(f"these programs are not on the PATH: {', '.join(missing)}")
    include = sysconfig.get_path("include")
    source = b"#include <Python.h>\nint main() { return PY_MAJOR_VERSION - 3; }\n"
    subprocess.run(["c++", f"-I{include}", "-fsyntax-only", "-x", "c++", "-"], input=source, check=True)
    subprocess.run(["ninja", "--version"], stdout=subprocess.DEVNULL, check=True)
    print("the compiler, Python's headers and ninja work")

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        subprocess.run(["neobert", "glue", *TRAIN.split(), "--output-dir", out], env=environment, check=True)
        if not (out / "result.json").is_file():
            sys.exit("the training ended without a result")
    print("a training of two steps works")


if __name__ == "__main__":
    main()
