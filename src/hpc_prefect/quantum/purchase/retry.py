"""Repeats failed questions to a service, by the kind of the error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from hpc_prefect.errors import QuantumServiceError
from hpc_prefect.quantum.service import Kind
from hpc_prefect.transports.host import host

T = TypeVar("T")


class Notify(Protocol):
    """Receives messages about what happens."""

    def __call__(self, text: str, *, warning: bool = False) -> None: ...


#: Seconds before the first and the longest wait between two questions that failed.
FIRST, LONGEST = 1.0, 60.0
#: How often to sign in again after a refused token: it may have expired, or be too new.
SIGN_INS = 4


async def patiently(
    question: Callable[[], T],
    what: str,
    notify: Notify,
    *,
    kind_of: Callable[[BaseException], Kind],
    seconds: float | None = None,
) -> T:
    """Ask in a thread until there is an answer. A failed question concludes nothing.

    Args:
        what: what is asked, for the messages: `asking for job 17`.
        notify: receives a message when trouble begins, and when it ends.
        kind_of: what can be done about an error of this service.
        seconds: how long to go on in trouble of the network or the server; None for ever.

    Raises:
        QuantumServiceError: there was no answer for so long, or the token is refused.
        Exception: any error that asking again would not change, as the client raised it.
    """
    delay, refused, since, told = FIRST, 0, host().monotonic(), ""
    while True:
        try:
            answer = await asyncio.to_thread(question)
        except Exception as error:
            kind = kind_of(error)
            if kind is Kind.UNAUTHORIZED:
                refused += 1
            if kind not in (Kind.TRANSIENT, Kind.UNAUTHORIZED):
                raise
            _give_up(error, what, refused, seconds, since)
            if told != kind.value:  # not for each question: an outage may last for hours
                notify(f"{what}: {first_line(error)} ({kind.value}); asking again", warning=True)
                told = kind.value
        else:
            if told:
                notify(f"{what}: answered after {host().monotonic() - since:.0f} s")
            return answer
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST)


def _give_up(
    error: Exception, what: str, refused: int, seconds: float | None, since: float
) -> None:
    if refused >= SIGN_INS:
        raise token_refused(error, f"{what}: ") from error
    if seconds is not None and host().monotonic() - since > seconds:
        raise QuantumServiceError(
            f"{what}: no answer for {seconds:.0f} s ({first_line(error)}). Run again when the"
            " service can be reached; a job that was bought is attached again"
        ) from error


def token_refused(error: BaseException, what: str = "") -> QuantumServiceError:
    """The error for a token that is refused again and again."""
    return QuantumServiceError(
        f"{what}the service does not accept the token ({first_line(error)}). Put a valid one into"
        " the credentials block and run again; a job that was bought is attached again"
    )


def first_line(error: BaseException) -> str:
    """An error in one line."""
    text = str(error).partition("\n")[0].strip()
    return f"{type(error).__name__}: {text[:300]}"
