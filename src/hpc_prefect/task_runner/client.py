"""What hands a flow's tasks to workers: Dask's client, as `prefect-dask` makes use of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from distributed import Client, Future
from prefect.states import Crashed
from prefect_dask.client import PrefectDaskClient


class CarryingClient(Client):  # type: ignore[misc]
    """Dask's client, for functions that always come back with something."""

    def submit(self, func: Callable[..., Any], *args: Any, **terms: Any) -> Future:
        # Each is a task run of its own: a digest of all that is sent would find no two alike.
        return super().submit(brought_back(func), *args, **terms | {"pure": False})


class WorkerClient(PrefectDaskClient, CarryingClient):  # type: ignore[misc]
    """`prefect-dask` makes a function of the task; the client below it, ours, sends that."""


def brought_back(run: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs a task, with a state also for what is no `Exception`.

    A flow run that was cancelled ends its tasks so, and `sys.exit` does. Dask would end its worker
    by it, or raise it in the flow's event loop, which then tells nobody: the flow would hang.
    """

    @wraps(run)
    def carried(*args: Any, **given: Any) -> Any:
        try:
            return run(*args, **given)
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001 - the flow raises it, where its result is asked for
            return Crashed(message=f"{type(error).__name__}: {error}", data=error)

    return carried
