"""The launcher: recipe -> trials -> job scripts -> Slurm or this machine -> status and results.

Runs on login nodes, so it never imports torch, transformers or deepspeed.
"""
