"""A Ray cluster of two nodes on this machine, more cores than it has, until standard input ends.

Prints its address, and the one of its client server, where that can be had.
"""

from __future__ import annotations

import importlib.util
import socket
import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 200 * 2**20}

served = {}
if importlib.util.find_spec("grpc") is not None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        served = {"ray_client_server_port": free.getsockname()[1]}
cluster = Cluster(initialize_head=True, head_node_args=NODE | served)
try:
    cluster.add_node(**NODE)
    client_server = [f"ray://127.0.0.1:{port}" for port in served.values()]
    sys.stdout.write(" ".join([cluster.address, *client_server]) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
finally:
    cluster.shutdown()
