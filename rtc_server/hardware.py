"""What this machine can run, found out without loading a deep-learning framework."""

from __future__ import annotations

import ctypes
import os

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
