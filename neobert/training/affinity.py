"""Each process on the cores that are near its GPU.

On a node with several NUMA domains, memory and PCIe of another domain are reached through the sockets' interconnect.
Which cores are near is told by the kernel for each PCI device, so no table of boards is needed.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

PCI_DEVICES = Path("/sys/bus/pci/devices")


def bind_to_gpu(device: int) -> None:
    """Restricts this process to those of its cores that are near the CUDA device; without any such, to nothing less.

    A job may have been given only cores of other domains, and virtual machines tell no domains: both are left as they
    are. Threads that are started later inherit the choice.
    """
    import torch

    properties = torch.cuda.get_device_properties(device)
    address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    chosen = near(address) & os.sched_getaffinity(0)
    if chosen:
        os.sched_setaffinity(0, chosen)
        log.debug("GPU %d (%s): bound to %d cores near it", device, address, len(chosen))


def near(address: str, devices: Path = PCI_DEVICES) -> set[int]:
    """The cores near a PCI device (`0000:07:00.0`); none where the kernel does not tell.

    Source: Documentation/ABI/testing/sysfs-bus-pci of the Linux kernel, `local_cpulist`.
    """
    try:
        text = (devices / address / "local_cpulist").read_text()
    except FileNotFoundError:
        return set()
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            cores.update(range(int(first), int(last or first) + 1))
    return cores
