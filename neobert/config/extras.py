"""How to install the packages of this project's extras (`[project.optional-dependencies]`)."""

from __future__ import annotations

import os


def install(*extras: str) -> str:
    """Return what to do where packages of these extras are missing, here or in the image that this runs in.

    It never names this project to a package index: the name is not registered there, so that anybody could take it,
    and with it run code on the machines of those who follow the advice.
    """
    names = ",".join(extras)
    if os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER"):
        return f"build the image with {names} in EXTRAS of its definition (`recipe image build`)"
    return f"run `pip install -c constraints.txt -e '.[{names}]'` in the checkout"
