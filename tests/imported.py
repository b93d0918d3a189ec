"""The process from which `warm.py` forks others: what they would import is imported here, once.

    python imported.py SOCKET MODULE …

It has no thread and no connection to Prefect when it forks, so that a forked process differs from
one that was started afresh in nothing but the time that its imports take. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import socket
import sys
import types
from typing import Any

#: The folder of this file, which is not on the path of a program.
_PATH = sys.path[1:]


def serve(at: str) -> dict[str, Any]:
    """Fork a process for each request; in that process, return the request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(at)
    listener.listen(64)
    print("ready", flush=True)
    waited = selectors.DefaultSelector()
    waited.register(sys.stdin.fileno(), selectors.EVENT_READ)
    waited.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waited.select():
            if key.fileobj is listener:
                asker, _ = listener.accept()
                request, streams = _received(asker)
                pid = os.fork()
                if pid == 0:
                    asker.close()
                    _leave(waited)
                    _become(request, streams)
                    return request
                for stream in streams:
                    os.close(stream)
                asker.sendall(f"{pid}\n".encode())
                waited.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, asker))
            elif key.data is None:  # stdin: the tests are over
                os._exit(0)
            else:
                _tell_end(waited, key)


def _received(asker: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, streams, _, _ = socket.recv_fds(asker, 1 << 16, 3)
    while not data.endswith(b"\n"):
        data += asker.recv(1 << 16)
    return json.loads(data), list(streams)


def _tell_end(waited: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, asker = key.data
    _, status = os.waitpid(pid, 0)
    waited.unregister(key.fd)
    os.close(key.fd)
    with asker, contextlib.suppress(OSError):  # whoever asked may be gone
        asker.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _leave(waited: selectors.BaseSelector) -> None:
    """Close what belongs to the process that forks."""
    for key in list(waited.get_map().values()):
        if key.data is not None:
            key.data[1].close()
            os.close(key.fd)
        elif key.fd != sys.stdin.fileno():
            key.fileobj.close()  # type: ignore[union-attr]
    waited.close()


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Have what the process would have if it had been started so."""
    if request["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.orig_argv = [sys.executable, *request["words"]]
    more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if request["words"][0] == "-c":
        sys.argv, folder = ["-c", *request["words"][2:]], ""
    else:
        sys.argv = list(request["words"])
        folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    sys.path[:] = [folder, *filter(None, more), *(each for each in _PATH if each not in more)]


def program(words: list[str]) -> tuple[types.CodeType, dict[str, Any]]:
    """The code of the program, and the module `__main__` in which it runs."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if words[0] == "-c":
        return compile(words[1], "<string>", "exec"), main.__dict__
    main.__file__ = os.path.abspath(words[0])
    with open(main.__file__, "rb") as file:
        return compile(file.read(), main.__file__, "exec"), main.__dict__


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()  # a collection would copy the pages that all processes share
    # The last thing that this module does: it ends as the program ends.
    exec(*program(serve(sys.argv[1])["words"]))
