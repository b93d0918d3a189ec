"""How to sample: shots, seeds and what a backend lets one choose.

They come from a Prefect Variable, a JSON object, and from the call's own `options`, which win. If
the Variable has a key `"sampler"`, that object holds the options and everything beside it belongs
to the flow (the shape of its circuit, for instance). Without it the whole Variable holds options.

The seed is used as it is given: the same work with the same seed gives the same bits, so a loop
that wants fresh samples passes `options={"seed": …}` from its own random generator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: The key of a shared Variable that holds the options of the sampler.
SECTION = "sampler"

_LARGEST_SEED = 2**63 - 1


class SamplerOptions(BaseModel):
    """The options of one sampling, checked.

    Attributes:
        shots: for every PUB that brings none of its own.
        seed: of the simulator. A simulator needs one, so that a run can be repeated.
        seed_transpiler: of the layout and routing for a device; `seed` if it is not given.
        optimization_level: of the transpilation for a device, 0 to 3.
        depolarizing: the probability that a shot is uniformly random (ffsim only), 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    shots: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, le=_LARGEST_SEED)
    seed_transpiler: int | None = Field(default=None, ge=0, le=_LARGEST_SEED)
    optimization_level: int = Field(default=1, ge=0, le=3)
    depolarizing: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)

    @property
    def layout_seed(self) -> int | None:
        """The transpiler's seed."""
        return self.seed if self.seed_transpiler is None else self.seed_transpiler


def parse_options(
    layers: Iterable[tuple[str, object]],
) -> tuple[SamplerOptions | None, list[str]]:
    """Merge layers of options, the last wins; say everything that is wrong with them.

    Args:
        layers: where each comes from, for the messages (`"Variable 'quantum'"`), and the object.

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
            if key in SamplerOptions.model_fields:
                # A seed from NumPy's generator is NumPy's integer.
                plain = value.item() if hasattr(value, "item") else value
                merged[key], origin[key] = plain, where
            else:
                hint = suggestion(key, SamplerOptions.model_fields)
                problems.append(f"{where}: there is no option {key!r}{hint}")
    try:
        options = SamplerOptions.model_validate(merged)
    except ValidationError as error:
        for item in error.errors():
            key = str(item["loc"][0])
            text = item["msg"].removeprefix("Input ")
            problems.append(f"{origin[key]}: {key} {text}, not {item['input']!r}")
        return None, problems
    return (None if problems else options), problems


def options_of_variable(value: object) -> object:
    """The part of a Variable that holds the options (see the module's text)."""
    if isinstance(value, Mapping) and SECTION in value:
        return value[SECTION]
    return value


def suggestion(word: object, known: Collection[str]) -> str:
    """The end of a sentence about an unknown word: the near one, or else all there are."""
    near = get_close_matches(str(word), list(known), n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(sorted(known))}" if known else "; there are none"
