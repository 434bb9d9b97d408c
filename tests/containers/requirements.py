"""Whether this machine can build and run images at all."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from neobert.config import ConfigError
from slurm.image.host import debian_mirror, has_range
from slurm.user import user_name

CPU_IMAGE = Path(__file__).resolve().parents[2] / ".cache" / "images" / "neobert-cpu.sif"
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
INSTALL = "sudo bash tests/apptainer/install.sh"
RANGE = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535"


def missing() -> str | None:
    """The reason why no images can be built here, with what to do about it; None when they can."""
    path = f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"
    absent = [name for name in ("apptainer", "debootstrap", "mksquashfs") if shutil.which(name, path=path) is None]
    if absent:
        return f"images need {', '.join(absent)}: run `{INSTALL}`"
    if platform.machine() != "x86_64":
        return f"the tests of images need x86_64, and this is {platform.machine()}: run `make test` on such a machine"
    trial = subprocess.run(["apptainer", "--version"], capture_output=True, text=True)
    if trial.returncode:
        return f"`apptainer --version` fails ({trial.stderr.strip()}): run `{INSTALL}`"
    return None


def missing_for_cpu_image() -> str | None:
    """The reason why there can be no `CPU_IMAGE`, which is made of Debian packages; None when it is there already."""
    if (reason := missing()) or CPU_IMAGE.exists():
        return reason
    if os.geteuid() != 0 and not has_range():
        return f"the CPU image needs a range of user ids: run `{RANGE} {user_name()}`"
    try:
        debian_mirror()
    except ConfigError as error:
        return f"{error}: run `recipe image build cpu --mirror URL --output {CPU_IMAGE}`"
    return None
