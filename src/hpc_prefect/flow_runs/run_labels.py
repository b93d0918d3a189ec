"""Labels of a flow run in Prefect, by which `resume` and `cancel_jobs` find its folders.

Anybody can read them in Prefect's UI and API:

    hpc-prefect.campaign.<n>-<digest>
                               a campaign's first folder: the n-th of the process that opened it, so
                               that two processes of one run never give the same label
    hpc-prefect.host           where it ran
    hpc-prefect.cwd            the process's working directory
    hpc-prefect.entrypoint     `FILE:FLOW` or `MODULE:FLOW`
    hpc-prefect.name           the campaign's name, if it was chosen around the flow
    hpc-prefect.lost           parameters that Prefect does not hold as they were given
    hpc-prefect.reproduces     the folder of the record of the run that it reproduces

A name or path that is not a line of printable characters is written as JSON.

They are sent in the background. Until Prefect has taken them they are in a file of each process in
Prefect's home, which is read as well.
"""

from __future__ import annotations

import contextvars
import inspect
import json
import logging
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

from hpc_prefect.errors import HpcPrefectError
from hpc_prefect.flow_runs import prefect_internals as internals
from hpc_prefect.flow_runs.clients import short_sync_client
from hpc_prefect.flow_runs.per_run import PerRun
from hpc_prefect.flow_runs.reproduction import recorded
from hpc_prefect.flow_runs.scopes import current_run, root_flow
from hpc_prefect.job.folder import read_entries
from hpc_prefect.job.identity import digest, exact_digest
from hpc_prefect.ledger.campaign_parts import folders_of
from hpc_prefect.transports.local import LocalTransport, unique

logger = logging.getLogger("hpc_prefect.flow_runs.campaigns")

_PREFIX = "hpc-prefect."
_CAMPAIGN = f"{_PREFIX}campaign."
_JSON = "json:"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The content of a flow run's labels.

    Attributes:
        folders: of its campaigns, in the order in which they were opened; the first of a campaign
            in several work_dirs. `campaign_folders` finds the others.
        lost: names of parameters that Prefect does not hold as they were given.
    """

    folders: tuple[str, ...] = ()
    host: str = ""
    cwd: str = ""
    entrypoint: str = ""
    name: str = ""
    lost: tuple[str, ...] = ()
    reproduces: str = ""


def read_trace(flow_run: FlowRun) -> Trace:
    """A flow run's labels, also those that were not sent yet. Asks Prefect.

    The labels in `flow_run` may be out of date: they are used when Prefect does not answer.
    """
    noted = _noted(flow_run.id)  # first, since files go when their labels are sent
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(flow_run.id).labels
    except Exception as error:  # noqa: BLE001 - whatever it is, its jobs have to be found
        logger.warning("Prefect did not give the labels of run %s: %s", flow_run.name, error)
        found = flow_run.labels
    return _trace(noted | dict(found or {}))


def known_trace(flow_run: FlowRun) -> Trace:
    """The labels in this object and in this Prefect home. Does not ask Prefect."""
    return _trace(_noted(flow_run.id) | dict(flow_run.labels or {}))


def _trace(labels: Mapping[str, object]) -> Trace:
    def text(name: str) -> str:
        return _read(labels.get(f"{_PREFIX}{name}", ""))

    numbered = [key for key in labels if key.startswith(_CAMPAIGN)]
    numbered.sort(key=lambda key: int(key.removeprefix(_CAMPAIGN).partition("-")[0]))
    return Trace(
        folders=tuple(dict.fromkeys(_read(labels[key]) for key in numbered)),
        host=text("host"),
        cwd=text("cwd"),
        entrypoint=text("entrypoint"),
        name=text("name"),
        lost=tuple(json.loads(text("lost") or "[]")),
        reproduces=text("reproduces"),
    )


def campaign_folders(trace: Trace) -> list[str]:
    """The folders of a flow run's campaigns, in all of their work_dirs. Reads them."""
    found = (each for folder in trace.folders for each in folders_of(LocalTransport(), folder))
    return list(dict.fromkeys((*trace.folders, *found)))


def _notes_of(flow_run_id: UUID) -> str:
    """The folder with the run's files of labels, one for each process."""
    return f"{get_current_settings().home}/hpc-prefect/flow-runs/{flow_run_id}"


def _noted(flow_run_id: UUID) -> dict[str, str]:
    """The labels in files, which Prefect may not have taken."""
    folder, transport = _notes_of(flow_run_id), LocalTransport()
    found: dict[str, str] = {}
    try:
        for name in transport.list(folder):
            for entry in read_entries(transport.read(f"{folder}/{name}")):
                found |= {key: str(text) for key, text in entry.items()}
    except HpcPrefectError as error:
        logger.warning("the unsent labels of flow run %s could not be read: %s", flow_run_id, error)
    return found


def _written(text: str) -> str:
    """A text as a label: labels are UTF-8, which not all names and paths are."""
    plain = text.isprintable() and not text.startswith(_JSON)
    return text if plain else f"{_JSON}{json.dumps(text)}"


def _read(label: object) -> str:
    text = str(label)
    return str(json.loads(text.removeprefix(_JSON))) if text.startswith(_JSON) else text


#: The folders that each run's labels name.
_left: PerRun[list[str]] = PerRun(list)
_lock = threading.Lock()


def leave_trace(folder: str, *, chosen_outside: str, for_others: bool = False) -> None:
    """Label the outermost flow run of this call with a campaign that it works on. Writes a file.

    Args:
        folder: the campaign's.
        chosen_outside: the campaign's name, when it was chosen around the flow and not in it.
        for_others: other processes of the run need the file, so it stays until the run's end.
    """
    root = root_flow()
    if root is None or root.flow_run is None:
        return
    run = root.flow_run
    with _lock:
        folders = _left.of(current_run())
        folders += [each for each in known_trace(run).folders if each not in folders]
        if folder in folders:
            return
        folders.append(folder)
        number = f"{len(folders)}-{digest(folder)[:8]}"
        labels = {f"{_CAMPAIGN}{number}": folder}
    if len(folders) == 1:
        labels |= _circumstances(root, chosen_outside)
    written = {key: _written(text) for key, text in labels.items()}
    _sender.send(run, written, keep=for_others)


def forget_notes(flow_run_id: UUID) -> None:
    """Remove the files of a completed run, which its other processes no longer need.

    The file of labels that this process has yet to send stays until it has.
    """
    folder = _notes_of(flow_run_id)
    unsent = _sender.unsent(flow_run_id)
    with suppress(OSError):
        for name in os.listdir(folder):
            if name != unsent:
                os.unlink(f"{folder}/{name}")
        os.rmdir(folder)


class _LabelSender:
    """Sends labels to Prefect in a thread: one run at a time, all of its labels at once."""

    def __init__(self) -> None:
        self._file = unique()
        self._lock = threading.Lock()
        self._waiting: dict[UUID, _Unsent] = {}
        self._now: dict[UUID, _Unsent] = {}  # the run whose labels are being sent
        self._sending = False

    def send(self, run: FlowRun, labels: Mapping[str, str], *, keep: bool) -> None:
        """Send labels; when this returns they are in the file, which stays if `keep`."""
        with self._lock:
            self._note(run.id, labels)
            unsent = self._waiting.setdefault(run.id, _Unsent(run.name, internals.settings_here()))
            unsent.labels |= labels
            unsent.keep |= keep
            if self._sending:
                return
            self._sending = True
        # Not a daemon: a short script would end before it. In an empty context: the run may end.
        thread = threading.Thread(target=self._work, name="hpc-prefect-labels", daemon=False)
        contextvars.Context().run(thread.start)

    def unsent(self, run_id: UUID) -> str:
        """The name of the file if it has labels that are not sent yet; else empty."""
        with self._lock:
            still = [each[run_id] for each in (self._waiting, self._now) if run_id in each]
            for unsent in still:
                unsent.keep = False
        return self._file if still else ""

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._sending = False
                    return
                run_id, unsent = self._waiting.popitem()
                self._now = {run_id: unsent}
            with internals.settings_as(unsent.settings):
                sent = self._send(run_id, unsent)
                with self._lock:
                    self._now = {}
                    if sent and run_id not in self._waiting and not unsent.keep:
                        self._drop_file(run_id)

    def _send(self, run_id: UUID, unsent: _Unsent) -> bool:
        try:
            with short_sync_client() as client:
                client.update_flow_run_labels(run_id, unsent.labels)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the run itself does not need it
            logger.warning(
                "Prefect did not take the labels of flow run %s (%s): the hook cancel_jobs, and"
                " `hpc-prefect resume` from another Prefect home, will not find its jobs;"
                " `hpc-prefect jobs` will",
                unsent.name,
                error,
            )
            return False
        return True

    def _drop_file(self, run_id: UUID) -> None:
        folder = _notes_of(run_id)
        with suppress(OSError):
            os.unlink(f"{folder}/{self._file}")
            os.rmdir(folder)  # fails while there are files of other processes

    def _note(self, run_id: UUID, labels: Mapping[str, str]) -> None:
        folder = _notes_of(run_id)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            line = json.dumps(dict(labels)).encode() + b"\n"
            LocalTransport().append(f"{folder}/{self._file}", line)
        except (HpcPrefectError, OSError) as error:  # the labels are sent all the same
            logger.warning(
                "the labels of flow run %s could not be written to a file, and may be lost: %s",
                run_id,
                error,
            )


@dataclass
class _Unsent:
    name: str
    settings: internals.SettingsHere
    labels: dict[str, str] = field(default_factory=dict)
    keep: bool = False


_sender = _LabelSender()


def _begin_anew() -> None:
    """Renew it in a forked child, which has no thread; the parent sends its own labels."""
    global _sender
    _sender = _LabelSender()


os.register_at_fork(after_in_child=_begin_anew)


def _circumstances(root: FlowRunContext, chosen_outside: str) -> dict[str, str]:
    labels = {
        "host": socket.gethostname(),
        "cwd": os.getcwd(),
        "entrypoint": entrypoint_of(root.flow),
        "name": chosen_outside,
        "lost": json.dumps(lost) if (lost := lost_parameters(root)) else "",
        "reproduces": reproduced.folder if (reproduced := recorded()) else "",
    }
    return {f"{_PREFIX}{key}": text for key, text in labels.items() if text}


def entrypoint_of(flow: Any) -> str:
    """The flow's entry point: its file, or its module when that is in a package."""
    if flow is None:
        return ""
    module, name = flow.fn.__module__ or "", flow.fn.__qualname__
    if "." in module and not module.startswith("__"):
        return f"{module}:{name}"
    try:
        return f"{os.path.abspath(inspect.getfile(flow.fn))}:{name}"
    except (TypeError, OSError):
        return f"{module}:{name}"


def lost_parameters(root: FlowRunContext, stored: Mapping[str, Any] | None = None) -> list[str]:
    """Parameters that would differ when they are read back from what was stored."""
    if stored is None:
        stored = (root.flow_run.parameters if root.flow_run else None) or {}
    given: Mapping[str, Any] = root.parameters or {}
    try:
        back = root.flow.validate_parameters(dict(stored)) if root.flow else {}
    except Exception:  # noqa: BLE001 - it says of what type the bad one is, but not its name
        back = dict(stored)
    return [name for name, value in given.items() if not _same(value, back.get(name))]


def _same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    try:
        return exact_digest(one) == exact_digest(other)
    except TypeError:  # not comparable as plain values, such as a model
        try:
            return bool(one == other)
        except Exception:  # noqa: BLE001 - such as arrays, which do not tell
            return False
