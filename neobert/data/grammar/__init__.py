"""A small made-up English in which the nine GLUE tasks can be learned from scratch within a minute.

It exists so that a demonstration and the tests need neither a download nor a pretrained model. A score on it says
that training works, and nothing about language: never compare it with a published GLUE score.
"""

from neobert.data.grammar.generate import DEV_ROWS, generated_splits, write_glue_directory
from neobert.data.grammar.text import document

__all__ = ["DEV_ROWS", "document", "generated_splits", "write_glue_directory"]
