"""Finds out what this machine can run, without loading a deep-learning framework."""

from __future__ import annotations

import ctypes
import os
import socket
from ipaddress import ip_address
from typing import Final

import ifaddr

_CUDA_SUCCESS: Final = 0
# Addresses of the documentation (RFC 5737, RFC 3849): what leads anywhere leads there.
_ROUTE_PROBES: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


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


def routed_addresses() -> list[str]:
    """The addresses by which this machine reaches others, so those by which neighbours reach it, most likely: at most
    one of each family, IPv4 first."""
    found: list[str] = []
    for family, destination in _ROUTE_PROBES:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((destination, 9))  # of UDP, connecting sends nothing: it looks up the route
            except OSError:
                continue
            address = ip_address(probe.getsockname()[0])
        if not (address.is_loopback or address.is_unspecified):
            found.append(str(address))
    return found
