"""The convergence loop: step, measure, stop rule, resume. It knows no scheduler.

    result = await converge(step, initial_state, measure=measure, work_dir="work",
                            stop_variable_name="sqd-algorithm", seed=7)

`stop` when to end (pure); `checkpoint` the loop's memory on disk; `loop` the loop itself, which
knows no Prefect; `telemetry` rows, table and plot; `flow` the Prefect edge, `converge()`.
"""

from hpc_prefect.convergence.flow import converge
from hpc_prefect.convergence.loop import Convergence, Iteration
from hpc_prefect.convergence.stop import Reason, StopRule
from hpc_prefect.convergence.telemetry import Plot

__all__ = ["Convergence", "Iteration", "Plot", "Reason", "StopRule", "converge"]
