"""The configuration files, as pure functions of a layout."""

from __future__ import annotations

from collections.abc import Iterable

from tests.cluster.layout import CONTROLLER, GPUS_PER_NODE, SLURMCTLD_PORT, SLURMD_PORT, SLURMDBD_PORT, Layout

CPUS_PER_NODE = 32
ENFORCE_MEMORY = {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/cgroup"}


def slurm_conf(layout: Layout) -> str:
    run = layout.run
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{CONTROLLER}({layout.address(CONTROLLER)})",
        "SlurmctldPort": SLURMCTLD_PORT,
        "SlurmdPort": SLURMD_PORT,
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "SlurmctldPidFile": run / "slurmctld.pid",
        "SlurmdPidFile": run / "slurmd-%n.pid",
        "StateSaveLocation": run / "slurmctld",
        "SlurmdSpoolDir": run / "slurmd-%n",
        "SlurmctldLogFile": layout.log("slurmctld"),
        "SlurmdLogFile": layout.logs / "slurmd-%n.log",
        "AuthType": "auth/munge",
        # A requeued job waits for the credential to expire: 121 s with the default, 6.5 s with 5; 2 does not work.
        "AuthInfo": f"cred_expire=5,socket={layout.munge_socket}",
        "CryptoType": "crypto/munge",
        # Nodes claim more CPUs and memory than the machine below has.
        "SlurmdParameters": "config_overrides",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": 100,
        "GresTypes": "gpu",
        "MpiDefault": "none",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        # A preempted job gets the signal of its own --signal option, not only SIGTERM.
        "SlurmctldParameters": "preempt_send_user_signal",
        "JobRequeue": 1,
        "SchedulerParameters": ",".join(
            [
                "batch_sched_delay=0,sched_interval=1,sched_min_interval=0",
                "bf_interval=1,bf_max_job_test=1000,default_queue_depth=1000,partition_job_depth=0",
                "nohold_on_prolog_fail",
            ]
        ),
        "MaxArraySize": 100001,
        "MaxJobCount": 200000,
        "MinJobAge": 300,
        # 2 would take a node that was down back at once, with the job that it had lost.
        "ReturnToService": 1,
        # A lost node is noticed after about 14-24 s. Shorter ones take a busy machine for a dead one.
        "SlurmctldTimeout": 10,
        "SlurmdTimeout": 6,
        "MessageTimeout": 5,
        "TCPTimeout": 2,
        "BatchStartTimeout": 10,
        "KillWait": 5,
        "UnkillableStepTimeout": 180,
        "CompleteWait": 0,
        # Answers `sacct -c`, which is all there is without slurmdbd.
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": layout.logs / "jobcomp.log",
        **_accounting(layout),
        **layout.spec.settings,
    }
    nodes = [
        f"NodeName={node} NodeAddr={layout.address(node)} CPUs={CPUS_PER_NODE} Sockets=2 "
        f"CoresPerSocket={CPUS_PER_NODE // 2} ThreadsPerCore=1 RealMemory=16000 Gres=gpu:{GPUS_PER_NODE}"
        for node in layout.nodes
    ]
    partitions = [
        "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=10",
        "PartitionName=low Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=1 GraceTime=10",
    ]
    return _lines([*(f"{key}={value}" for key, value in settings.items()), *nodes, *partitions])


def _accounting(layout: Layout) -> dict[str, object]:
    if not layout.spec.accounting:
        return {"AccountingStorageType": "accounting_storage/none"}
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": layout.address(CONTROLLER),
        "AccountingStoragePort": SLURMDBD_PORT,
        "AccountingStoragePass": layout.munge_socket,
        "AccountingStorageTRES": "gres/gpu",
    }


def gres_conf(layout: Layout) -> str:
    files = f"{layout.dir}/gpu/nvidia[0-{GPUS_PER_NODE - 1}]"
    return _lines(f"NodeName={node} Name=gpu File={files}" for node in layout.nodes)


def cgroup_conf() -> str:
    """By default nothing uses cgroups, but slurmd would even then ask the host's systemd for some of version 2.

    With ENFORCE_MEMORY as settings, a step that takes more than its --mem ends OUT_OF_MEMORY. That needs a host with
    cgroups of version 1, and no other cluster like it there: Slurm calls the cgroup of a node by the node's name.
    """
    return _lines(["CgroupPlugin=cgroup/v1", "ConstrainRAMSpace=yes"])


def slurmdbd_conf(layout: Layout) -> str:
    settings = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "DbdHost": CONTROLLER,
        "DbdAddr": layout.address(CONTROLLER),
        "DbdPort": SLURMDBD_PORT,
        "SlurmUser": "root",
        "LogFile": layout.log("slurmdbd"),
        "PidFile": layout.run / "slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StorageUser": "root",
        "StorageLoc": "slurm",
    }
    return _lines(f"{key}={value}" for key, value in settings.items())


def mariadb_conf(layout: Layout) -> str:
    """A throw-away database: nothing is forced to disk, and whoever reaches it (the controller) may do everything."""
    return _lines(
        [
            "[mariadbd]",
            "user=root",
            f"datadir={layout.run}/mariadb",
            f"socket={layout.run}/mariadb.socket",
            f"pid-file={layout.run}/mariadb.pid",
            "bind-address=127.0.0.1",
            "skip-grant-tables",
            "innodb-buffer-pool-size=64M",
            "innodb-log-file-size=8M",
            "innodb-lock-wait-timeout=900",
            "innodb-flush-log-at-trx-commit=0",
            "innodb-doublewrite=0",
            "innodb-use-native-aio=0",
        ]
    )


def hosts(layout: Layout, host_name: str) -> str:
    """/etc/hosts of every machine; `host_name` is what the machine below calls itself."""
    names = {layout.host_address: host_name, **{layout.address(name): name for name in layout.machines}}
    return _lines(["127.0.0.1 localhost", *(f"{address} {name}" for address, name in names.items())])


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
