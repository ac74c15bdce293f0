"""Cluster files: whether one is as it must be, what may still start, and what a cluster costs until it is ended."""
