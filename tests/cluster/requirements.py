"""Whether this machine can have a test cluster at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.cluster.machines import PATH, UNSHARE

NOT_ROOT = "the test cluster needs root, for its namespaces: use sudo"
INSTALL = "sudo bash tests/cluster/install.sh"
COMMANDS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "srun", "sacct", "ip", "nsenter", "unshare")


def missing() -> str | None:
    """The reason why there can be no cluster here, with what to do about it; None when there can."""
    if sys.platform != "linux":
        return "the test cluster needs Linux: run its tests on a Debian 12 machine"
    absent = [command for command in COMMANDS if shutil.which(command, path=PATH) is None]
    if absent:
        return f"the test cluster needs {', '.join(absent)}: run `{INSTALL}`"
    if os.geteuid() != 0:
        return NOT_ROOT
    trial = subprocess.run([*UNSHARE, "true"], env={"PATH": PATH}, capture_output=True, text=True)
    if trial.returncode:
        return f"the test cluster needs namespaces, which this container does not allow: {trial.stderr.strip()}"
    return None
