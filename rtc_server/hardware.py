"""What this machine can run, found out without loading a deep-learning framework."""

from __future__ import annotations

import ctypes
import os
import socket

import ifaddr

_CUDA_SUCCESS = 0


def cuda_devices() -> int:
    """How many CUDA devices the driver shows; 0 without a driver. Takes milliseconds, where importing torch
    takes seconds."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != _CUDA_SUCCESS or cuda.cuDeviceGetCount(ctypes.byref(count)) != _CUDA_SUCCESS:
        return 0
    return count.value


def cpu_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def addresses() -> list[str]:
    """This machine's IP addresses, without zones."""
    found = (ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return list(dict.fromkeys(address.partition("%")[0] for address in found))


def primary_address() -> str | None:
    """The IPv4 address by which this machine reaches others, so the one by which neighbours reach it, most likely."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Of UDP, connecting sends nothing: it looks up the route. The address is of the documentation (RFC 5737).
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") or address == "0.0.0.0" else address  # noqa: S104 - not bound to
