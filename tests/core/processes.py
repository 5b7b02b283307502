"""Functions run by several processes of a group, forked from the test, and what they return."""

import contextlib
import datetime
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback

import torch.distributed as dist

#: Nothing leaves this machine.
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def together(world, f, limit=60):
    """``f(rank)`` by each of ``world`` processes of a gloo group on this machine.

    Returns what each returned, or the exception that it raised, or None if it was killed.  All are killed after
    ``limit`` seconds, so that a hang fails.
    """
    with tempfile.TemporaryDirectory() as place:
        children = [_child(rank, world, f, place) for rank in range(world)]
        deadline = time.monotonic() + limit
        try:
            for child in children:
                while os.waitpid(child, os.WNOHANG) == (0, 0):
                    assert time.monotonic() < deadline, "the processes hang"
                    time.sleep(0.005)
        except AssertionError:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            raise
        return [_result(f"{place}/{rank}") for rank in range(world)]


def _child(rank, world, f, place):
    child = os.fork()
    if child:
        return child
    try:
        os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
        wait = datetime.timedelta(seconds=20)
        dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=world, timeout=wait)
        try:
            result = f(rank)
        except Exception as error:
            traceback.print_exc()
            result = error
        with open(f"{place}/{rank}", "wb") as file:
            pickle.dump(result, file)
        dist.barrier()
    finally:
        os._exit(0)


def _result(path):
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return pickle.load(file)
