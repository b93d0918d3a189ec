"""The three blocks of a job, and how they become one `JobSpec`.

    CommandBlock            WHAT   the command's identity
    ExecutionProfileBlock   HOW    its shape: nodes, ranks, threads, memory, walltime, its settings
    HPCProfileBlock         WHERE  everything that differs between places

**Which environment wins.** A variable may be set in several places; the later one in this list
wins:

1. `OMP_NUM_THREADS`, from the execution profile's `threads_per_rank`
2. the variables of the HPC profile's `qrmi`, then its `environment` (for `resource_class="gpu"`
   with `gpu.environment` over it)
3. the executable's `environment`, in the HPC profile's `executables`
4. the execution profile's `environment` (with that of `execution_profile_overrides` over it)
5. the variables of the HPC profile's `qrmi_api_keys`, then its `secret_environment`

All of them are set after the modules and the set-up lines, so they win over what those export.

**Strict and tolerant.** A block made in code or by `hpc-prefect blocks apply` refuses an unknown
field and suggests a known one. A document loaded from the server is read tolerantly: new fields get
their defaults, fields that no longer exist are left out, and a wrong value is reported by
`resolve`, with all other problems of the job.
"""

from hpc_prefect.blocks.call import Call
from hpc_prefect.blocks.checks import names_near
from hpc_prefect.blocks.load import Blocks, GivenBlocks, load_blocks, load_hpc_profile
from hpc_prefect.blocks.options import (
    ExecutableEntry,
    GPUOverrides,
    LocalOptions,
    PBSOptions,
    PJMOptions,
    SlurmOptions,
)
from hpc_prefect.blocks.profiles import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.blocks.qrmi import QRMIResource
from hpc_prefect.blocks.resolve import resolve

__all__ = [
    "Blocks",
    "Call",
    "CommandBlock",
    "ExecutableEntry",
    "ExecutionProfileBlock",
    "GPUOverrides",
    "GivenBlocks",
    "HPCProfileBlock",
    "LocalOptions",
    "PBSOptions",
    "PJMOptions",
    "QRMIResource",
    "SlurmOptions",
    "load_blocks",
    "load_hpc_profile",
    "names_near",
    "resolve",
]
