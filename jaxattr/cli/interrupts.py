"""Ctrl-C ends the program at once, also while XLA compiles, and leaves no half of a file."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 128 + signal.SIGINT

_writing = threading.Lock()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let what is done within be finished before Ctrl-C ends the program."""
    with _writing:
        yield


@contextmanager
def leave_on_interrupt() -> Iterator[None]:
    """End the program with 130 on Ctrl-C.

    Python would raise `KeyboardInterrupt` only when a compilation is over, and then from within
    XLA's C++, which may not survive that. So a thread waits for the signal, and leaves without
    unwinding anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    waiting = threading.Thread(target=_leave, args=(reader,), daemon=True)
    waiting.start()
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        signal.signal(signal.SIGINT, handler)
        os.close(writer)
        waiting.join()
        os.close(reader)


def _leave(reader: int) -> None:
    while received := os.read(reader, 1):
        if received[0] == signal.SIGINT:
            with _writing:
                sys.stderr.write("\nInterrupted. What is written is whole, and stays.\n")
                sys.stderr.flush()
                os._exit(EXIT_CODE)
