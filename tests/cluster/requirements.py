"""Whether this machine can have a test cluster at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.machines import PATH, UNSHARE

NOT_ROOT = "the test cluster needs root, for its namespaces: run `sudo make test`"
INSTALL = "sudo bash tests/cluster/install.sh"
COMMANDS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "srun", "sacct", "ip", "nsenter", "unshare")


def missing() -> str | None:
    """The reason why there can be no cluster here, with what to do about it; None when there can."""
    if sys.platform != "linux":
        return "the test cluster needs Linux: run `sudo make test` on a Debian machine"
    absent = [command for command in COMMANDS if shutil.which(command, path=PATH) is None]
    if absent:
        return f"the test cluster needs {', '.join(absent)}: run `{INSTALL}`"
    if os.geteuid() != 0:
        return NOT_ROOT
    trial = subprocess.run([*UNSHARE, "true"], env={"PATH": PATH}, capture_output=True, text=True)
    if trial.returncode:
        reason = trial.stderr.strip()
        return (
            f"the test cluster needs namespaces ({reason}): run `make test` in a container of `docker run --privileged`"
        )
    return None


def missing_memory_limits() -> str | None:
    """The reason why no cluster here can hold jobs to their memory."""
    if Path("/sys/fs/cgroup/memory").exists():
        return None
    line = 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX systemd.unified_cgroup_hierarchy=0"'
    return (
        "limits of memory need cgroups of version 1: run "
        f"`echo '{line}' | sudo tee /etc/default/grub.d/cgroups.cfg && sudo update-grub && sudo reboot`"
    )
