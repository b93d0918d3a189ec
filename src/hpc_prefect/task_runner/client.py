"""The client that submits a flow's tasks to workers: Dask's, as `prefect-dask` uses it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from distributed import Client, Future
from prefect.states import Crashed
from prefect_dask.client import PrefectDaskClient


class CarryingClient(Client):  # type: ignore[misc]
    """Dask's client; it wraps each function by `brought_back`."""

    def submit(self, func: Callable[..., Any], *args: Any, **terms: Any) -> Future:
        # Not pure: each is a task run of its own, so that Dask need not look for equal calls.
        return super().submit(brought_back(func), *args, **terms | {"pure": False})


class WorkerClient(PrefectDaskClient, CarryingClient):  # type: ignore[misc]
    """`prefect-dask` makes a function of the task; `CarryingClient`, its base, submits it."""


def brought_back(run: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs a task; it returns a state even for an error that is no `Exception`.

    Such errors come from a cancelled flow run and from `sys.exit`. With them Dask would end its
    worker, or raise them in the flow's event loop, where nobody sees them: the flow would hang.
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
