"""A Ray cluster of two nodes on this machine, in a process without JAX: Ray forks as it starts.

Prints its address, and then obeys the lines ``kill`` and ``add`` (the second node); any other, or
the end of its input, ends it.
"""

import sys
import warnings


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(second, allow_graceful=False)
        elif line.strip() == "add":
            second = cluster.add_node(num_cpus=1)
        else:
            break
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
