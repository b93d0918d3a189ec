"""The tables of iterations and of generations, and the last line of the demo, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Row = Mapping[str, float | int | str | bool | None]

HEADER = (
    "iteration   energy (Ha)   error (mHa)   change (mHa)   dimension"
    "   random: error (mHa)   dimension"
)


def line(row: Row) -> str:
    """One row of `Convergence.history` under `HEADER`."""
    change = row["change"]
    shown = f"{1e3 * change:12.3f}" if isinstance(change, float) else f"{'-':>12}"
    return (
        f"{row['iteration']:9d}  {row['energy']:12.6f}  {row['error_mha']:12.3f}   {shown}"
        f"   {row['dimension']:9d}   {row['uniform_error_mha']:19.3f}"
        f"   {row['uniform_dimension']:9d}"
    )


def iterations(history: Sequence[Row]) -> str:
    """Every iteration, LUCJ beside the uniform-random baseline of the same budget."""
    return "\n".join([HEADER, *(line(row) for row in history)])


GENERATIONS = (
    "generation   energy (Ha)   error (mHa)   dimension   best walker (mHa)   spread (mHa)"
    "   replaced   random: error (mHa)   dimension"
)


def generations(history: Sequence[Row]) -> str:
    """Every generation: the best so far, what the walkers' own samples give, the baseline."""
    lines = [
        f"{row['iteration']:10d}  {row['energy']:12.6f}  {row['error_mha']:12.3f}"
        f"   {row['dimension']:9d}   {row['best_walker_error_mha']:17.3f}"
        f"   {row['spread_mha']:12.3f}   {row['replaced']:8d}"
        f"   {row['uniform_error_mha']:19.3f}   {row['uniform_dimension']:9d}"
        for row in history
    ]
    return "\n".join([GENERATIONS, *lines])


def result_line(history: Sequence[Row], *, converged: bool) -> str:
    """The demo's last line; the energy with every digit, so that two runs can be compared."""
    last = history[-1]
    return (
        f"RESULT energy={last['energy']!r} error_mha={last['error_mha']:.3f} "
        f"iterations={len(history)} converged={str(converged).lower()}"
    )
