"""Copies of the running process, for tests that kill one or fill its disk: a new one would import everything anew."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

_FORK = multiprocessing.get_context("fork")


def forked(function: Callable[..., object], *arguments: object) -> tuple[BaseProcess, Connection]:
    """Run a function in a copy of this process; returns the copy and what receives what the function sends.

    The function is called with what it sends by, and then with `arguments`.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=function, args=(sender, *arguments), daemon=True)
    process.start()
    sender.close()  # so that a copy that ends early is an error of the receiver, which would wait
    return process, receiver
