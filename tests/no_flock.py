"""`python tests/no_flock.py COMMAND...` runs a command for which the kernel has no flock, as on some file systems.

A seccomp filter lets the system call fail with "Function not implemented", for the command and all of its children.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

COMMAND = [sys.executable, __file__]
NUMBERS = {"x86_64": 73, "aarch64": 32}
"""Numbers of flock in the kernel's table of system calls."""
NO_NEW_PRIVS, SECCOMP, MODE_FILTER = 38, 22, 2  # <linux/prctl.h>, <linux/seccomp.h>
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # <linux/bpf_common.h>
ALLOW, FAIL = 0x7FFF0000, 0x00050000


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def forbid_flock() -> None:
    steps = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, NUMBERS[platform.machine()]), (RETURN, 0, 0, FAIL | errno.ENOSYS),
             (RETURN, 0, 0, ALLOW)]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((NO_NEW_PRIVS, 1, 0, 0, 0), (SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid_flock()
    os.execvp(sys.argv[1], sys.argv[1:])
