"""One Trainer, and what it needs around it: ranks, files, checkpoints, preemption, reports."""
