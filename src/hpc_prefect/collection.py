"""The module that Prefect imports to find our block types (entry point `prefect.collections`)."""

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.quantum import IBMQuantumCredentials, QuantumBackendBlock

__all__ = [
    "CommandBlock",
    "ExecutionProfileBlock",
    "HPCProfileBlock",
    "IBMQuantumCredentials",
    "QuantumBackendBlock",
]
