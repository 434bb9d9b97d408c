"""Whether this machine can build and run images at all."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
INSTALL = "sudo APPTAINER_PACKAGE=FILE bash tests/apptainer/install.sh"


def missing() -> str | None:
    """The reason why no images can be built here, with what to do about it; None when they can."""
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    absent = [name for name in ("apptainer", "debootstrap", "mksquashfs") if shutil.which(name, path=path) is None]
    if absent:
        return f"images need {', '.join(absent)}: run `{INSTALL}`"
    if platform.machine() != "x86_64":
        return f"the tests of images are written for x86_64, and this is {platform.machine()}"
    trial = subprocess.run(["apptainer", "--version"], capture_output=True, text=True)
    if trial.returncode:
        return f"`apptainer --version` fails: {trial.stderr.strip()}"
    return None
