"""Transpiles circuits for a device, as a cached Prefect task.

The cache's key is the circuit, the device with its calibration, the settings and Qiskit's version:
not the task's source, not the run. The device's errors decide the layout, so a new calibration
makes a new one. The cached value is QPY, in Prefect's result storage.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from prefect import task
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpc_prefect.flow_runs.task_arguments import FIXED
from hpc_prefect.job.identity import digest

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

#: Settings that are also options of a call.
OPTIONS = ("optimization_level", "seed_transpiler")


class _Settings(BaseModel):
    """A block's settings of the transpilation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    optimization_level: int = Field(default=1, ge=0, le=3)
    seed_transpiler: int = Field(default=0, ge=0)
    initial_layout: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    layout_method: str = ""
    routing_method: str = ""
    translation_method: str = ""
    scheduling_method: str = ""
    approximation_degree: float = Field(default=1.0, ge=0, le=1)


def transpilation_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with a block's settings."""
    known = ", ".join(_Settings.model_fields)
    problems = []
    try:
        _Settings.model_validate(dict(settings))
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in each["loc"])
            unknown = each["type"] == "extra_forbidden"
            text = f"there is no such setting; there are: {known}" if unknown else each["msg"]
            problems.append(f"{where}: {text}")
    return problems


class Transpilation:
    """One circuit to be transpiled. Not a dataclass, which Prefect would search in full."""

    def __init__(
        self, circuit: QuantumCircuit, device: Any, settings: Mapping[str, Any], key: str
    ) -> None:
        self.circuit = circuit
        self.device = device
        self.settings = settings
        self.key = key


def transpilation(
    circuit: QuantumCircuit, device: Any, calibrated_at: str, settings: Mapping[str, Any]
) -> Transpilation:
    """What is to be transpiled, with its key. Blocks."""
    import qiskit

    from hpc_prefect.quantum.circuit_digest import structure_digest

    device_is = [device.name, calibrated_at, sorted(device.target.operation_names)]
    what = ["transpile", structure_digest(circuit), device_is, dict(settings), qiskit.__version__]
    return Transpilation(circuit, device, settings, f"hpc-prefect-transpile-{digest(what)}")


async def transpiled(work: Transpilation) -> QuantumCircuit:
    """The circuit in the device's own gates: from the cache, or new."""
    from qiskit import qpy

    packed = await _transpile(work)
    return (await asyncio.to_thread(lambda: qpy.load(io.BytesIO(packed))))[0]


def _key(context: object, parameters: dict[str, Any]) -> str:
    key: str = parameters["work"].key
    return key


@task(name="transpile", cache_key_fn=_key, persist_result=True, **FIXED)
async def _transpile(work: Transpilation) -> bytes:
    return await asyncio.to_thread(_run, work)


def _run(work: Transpilation) -> bytes:
    from qiskit import qpy
    from qiskit.transpiler.preset_passmanagers import generate_preset_pass_manager

    passes = generate_preset_pass_manager(backend=work.device, **work.settings)
    packed = io.BytesIO()
    qpy.dump(passes.run(work.circuit), packed)
    return packed.getvalue()
