"""Recipes for Slurm clusters: reads a recipe, submits its trials, and brings their results back.

`from slurm import Recipe` gives the Python door; the command is `recipe`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slurm.api import Recipe

__all__ = ["Recipe"]


def __getattr__(name: str) -> Any:
    """Imports the door when it is used, so that the command starts fast."""
    if name == "Recipe":
        from slurm.api import Recipe

        return Recipe
    raise AttributeError(f"module 'slurm' has no attribute '{name}'")
