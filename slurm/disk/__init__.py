"""Estimates how much of the disk a plan takes: at most while it runs, and for good."""
