"""How to sample and estimate: shots or precision, seeds, and options of a backend.

They come from a Prefect Variable, a JSON object, and from the call's own `options`, which win. If
the Variable has a key `"sampler"` (for estimates: `"estimator"`), that object holds the options and
everything beside it belongs to the flow (the shape of its circuit, for instance). With neither key
the whole Variable holds options.

The seed is used as it is given: the same work with the same seed gives the same bits, so a loop
that wants fresh samples passes `options={"seed": …}` from its own random generator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: The keys of a shared Variable that hold the options of one primitive.
SECTIONS = ("sampler", "estimator")

_LARGEST_SEED = 2**63 - 1


class PrimitiveOptions(BaseModel):
    """The options that sampling and estimating share, checked.

    Attributes:
        seed: of the simulator, which needs one, so that a run can be repeated. A quantum computer
            ignores it; there it only makes two calls different work.
        seed_transpiler: of the layout and routing for a device. If it is not given: `seed` for a
            fake device, 0 for a quantum computer, whose layout should not change with each call.
        optimization_level: of the transpilation for a device, 0 to 3.
        max_execution_time: QPU seconds after which the service ends the job (IBM only).
        runtime: options of qiskit-ibm-runtime's own primitive: error suppression and mitigation,
            twirling, `resilience_level` and so on (IBM only).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seed: int | None = Field(default=None, ge=0, le=_LARGEST_SEED)
    seed_transpiler: int | None = Field(default=None, ge=0, le=_LARGEST_SEED)
    optimization_level: int = Field(default=1, ge=0, le=3)
    max_execution_time: int | None = Field(default=None, ge=1)
    runtime: dict[str, Any] = Field(default_factory=dict)

    @property
    def layout_seed(self) -> int | None:
        """The transpiler's seed."""
        return self.seed if self.seed_transpiler is None else self.seed_transpiler


class SamplerOptions(PrimitiveOptions):
    """The options of one sampling, checked.

    Attributes:
        shots: for every PUB without its own.
        depolarizing: the probability that a shot is uniformly random (ffsim only), 0 to 1.
    """

    shots: int | None = Field(default=None, ge=1)
    depolarizing: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)


class EstimatorOptions(PrimitiveOptions):
    """The options of one estimation, checked.

    Attributes:
        precision: the target standard error, for every PUB without its own; 0 is exact, on a
            simulator.
    """

    precision: float | None = Field(default=None, ge=0, allow_inf_nan=False)


#: Options that a PUB may set itself.
OF_A_PUB = ("shots", "precision")

OptionsT = TypeVar("OptionsT", bound=PrimitiveOptions)


def parse_options(
    layers: Iterable[tuple[str, object]],
    kind: type[OptionsT] = SamplerOptions,  # type: ignore[assignment]
) -> tuple[OptionsT | None, list[str]]:
    """Merge layers of options, the last wins; returns all that is wrong with them.

    Args:
        layers: where each comes from, for the messages (`"Variable 'quantum'"`), and the object.
            Objects in objects (`runtime`) are merged in the same way.

    Returns:
        The options, or None and the problems.
    """
    problems: list[str] = []
    merged: dict[str, object] = {}
    origin: dict[str, str] = {}
    for where, layer in layers:
        if not isinstance(layer, Mapping):
            problems.append(f"{where}: must be a JSON object of options, not {layer!r}")
            continue
        for key, value in layer.items():
            if key in kind.model_fields:
                # A seed from NumPy's generator is NumPy's integer.
                plain = value.item() if hasattr(value, "item") else value
                merged[key], origin[key] = _over(merged.get(key), plain), where
            else:
                hint = suggestion(key, kind.model_fields)
                problems.append(f"{where}: there is no option {key!r}{hint}")
    try:
        options = kind.model_validate(merged)
    except ValidationError as error:
        for item in error.errors():
            key = str(item["loc"][0])
            text = item["msg"].removeprefix("Input ")
            problems.append(f"{origin[key]}: {key} {text}, not {item['input']!r}")
        return None, problems
    return (None if problems else options), problems


def _over(below: object, above: object) -> object:
    """One value over another; objects are merged key by key."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def options_of_variable(value: object, section: str = SECTIONS[0]) -> object:
    """The part of a Variable that holds the options (see the module's docstring)."""
    if isinstance(value, Mapping) and any(name in value for name in SECTIONS):
        return value.get(section, {})
    return value


def suggestion(word: object, known: Collection[str]) -> str:
    """The end of a sentence about an unknown word: the nearest known word, or else all of them."""
    near = get_close_matches(str(word), list(known), n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(sorted(known))}" if known else "; there are none"
