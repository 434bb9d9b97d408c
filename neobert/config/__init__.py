"""The settings of every task, as strict models that need no torch."""

from neobert.config.base import ConfigError, Problem, Strict, dotted, nearest, validate
from neobert.config.export import ExportConfig
from neobert.config.glue import GlueConfig
from neobert.config.paths import NamedPath, expand_home, named_paths
from neobert.config.pretrain import PretrainConfig
from neobert.config.sections import greater_is_better
from neobert.config.source import Source, dump_yaml, parse_value, parse_yaml, read_yaml, set_at
from neobert.config.submission import SubmissionConfig
from neobert.config.text import PreprocessConfig

TASKS: dict[str, type[Strict]] = {
    "glue": GlueConfig,
    "preprocess": PreprocessConfig,
    "pretrain": PretrainConfig,
    "export": ExportConfig,
    "submission": SubmissionConfig,
}
"""The settings model of each `neobert` command."""

__all__ = [
    "TASKS",
    "ConfigError",
    "ExportConfig",
    "GlueConfig",
    "NamedPath",
    "PreprocessConfig",
    "PretrainConfig",
    "Problem",
    "Source",
    "Strict",
    "SubmissionConfig",
    "dotted",
    "dump_yaml",
    "expand_home",
    "greater_is_better",
    "named_paths",
    "nearest",
    "parse_value",
    "parse_yaml",
    "read_yaml",
    "set_at",
    "validate",
]
