"""A Ray cluster of two nodes on this machine, more cores than it has, until standard input ends."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 200 * 2**20}

cluster = Cluster(initialize_head=True, head_node_args=NODE)
try:
    cluster.add_node(**NODE)
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    sys.stdin.read()
finally:
    cluster.shutdown()
