"""Training and evaluation of NeoBERT-like encoders: what runs inside the container.

Importing this package imports nothing heavy; `neobert.config` needs no torch either, because the launcher
(`slurm`) checks recipes with it on login nodes.
"""

__version__ = "0.1.0"
