"""What this machine brings to a build: a mirror of Debian, the tools, and the right to appear as root."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from neobert.config import ConfigError
from slurm.engine import Engine, find_engine
from slurm.image.definitions import Kind
from slurm.user import user_name

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where tools of administrators lie, which many users' PATH leaves out."""

ENGINES = ("apptainer", "singularity")


def engine() -> Engine:
    """The program for images of this machine."""
    return find_engine(next((name for name in ENGINES if shutil.which(name)), ENGINES[0]))


def builder(kind: Kind) -> Engine:
    """The program to build with; raises `ConfigError` if it or a tool that it needs is not there."""
    found = engine()
    if not found.has_build_arguments:
        raise ConfigError(f"{found} cannot fill in build arguments: Apptainer 1.2 or SingularityCE 4.0 is needed")
    if kind == "cpu" and shutil.which("debootstrap", path=search_path()) is None:
        raise ConfigError("the CPU image is made by debootstrap, which is not installed: `apt-get install debootstrap`")
    return found


def search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"


def compression(builder: Engine) -> list[str]:
    """zstd where the program can be told so: it packs three times as fast as gzip, into the same size."""
    usage = subprocess.run([builder.program, "build", "--help"], capture_output=True, text=True)
    known = "--mksquashfs-args" in usage.stdout
    return ["--mksquashfs-args", "-comp zstd -Xcompression-level 3"] if known else []


def debian_mirror() -> str:
    """The mirror that this machine's own apt uses; raises `ConfigError` on a machine that is no Debian."""
    if _distribution() != "debian" or shutil.which("apt-get") is None:
        raise ConfigError("this machine is no Debian whose mirror could be used: name one with --mirror URL")
    words = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"]
    answer = subprocess.run(words, capture_output=True, text=True)
    for line in answer.stdout.splitlines():
        site, _, release = line.partition(" ")
        if "-" not in release and site.startswith(("http://", "https://", "file:/")):  # not -security, -updates
            return site
    raise ConfigError("this machine's apt knows no mirror of a Debian release: name one with --mirror URL")


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("ID", "")
    except OSError:
        return ""


def advice(text: str, folder: Path) -> str:
    """What to do about a build that failed with `text`, where that is known; otherwise empty."""
    if "no space left on device" in text.lower():
        free = shutil.disk_usage(folder).free / 1e9
        return (
            f"a disk is full ({free:.1f} GB are free at {folder}): APPTAINER_TMPDIR and APPTAINER_CACHEDIR name "
            "directories with more room (30 GB for the GPU image), for layers and for the image's files"
        )
    if os.geteuid() != 0 and not has_range():
        user = user_name()
        return (
            f"if the log speaks of permissions or owners: {user} has no range of user ids in /etc/subuid and "
            f"/etc/subgid, which most builds need. An administrator adds one by: usermod --add-subuids 100000-165535 "
            f"--add-subgids 100000-165535 {user}"
        )
    return ""


def has_range() -> bool:
    """Whether this user may map a range of user ids, without which the files of most images cannot have owners."""
    names = (user_name(), str(os.getuid()))
    return all(
        path.is_file() and any(line.split(":")[0] in names for line in path.read_text().splitlines())
        for path in (Path("/etc/subuid"), Path("/etc/subgid"))
    )
