"""A real Slurm cluster of several nodes on one Debian machine, for tests and for trying things out.

Every node is a set of Linux namespaces with its own hostname, address and processes, running Debian's own slurmd; the
controller has munge, slurmctld, and slurmdbd with MariaDB. Only the file system is shared. `python -m tests.cluster
--help` is the way in by hand, `Cluster` the one for programs, and `tests.cluster.plugin` the one for tests.
"""

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError"]
