"""Checks before a search starts: machine, cluster, storage, data.

checks         checks of this machine, each a `Check` with its result and what to do
probe_nodes    the same facts from every node of a cluster
cost           what a search costs on this machine, measured
node_table     the table of all nodes, and the nodes that are not fit
"""
