"""Converts their documents to tables of our file format, with the fate of each field. Pure.

Modules, set-up commands, the launcher and its options belong to the execution profile there and to
the HPC profile here. So each of their execution profiles is merged into each HPC profile that has
its program; if two need different things of one HPC profile, that becomes two, `NAME` and `NAME-2`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hpc_prefect.block_files.qcsc.checking import check
from hpc_prefect.block_files.qcsc.documents import COMMAND, EXECUTION, HPC, RUNTIME, QcscDocument
from hpc_prefect.block_files.qcsc.fates import Fate, Fates, QcscFields
from hpc_prefect.block_files.qcsc.places import Place, read_place
from hpc_prefect.block_files.qcsc.programs import Program, Wish, read_command, read_program
from hpc_prefect.block_files.qcsc.runtime import read_runtime


@dataclass(slots=True)
class Conversion:
    """The result of the conversion.

    Attributes:
        tables: by kind and name, the fields of each block of ours.
        comments: by kind, name and field, the comment above it in the file.
        fates: what became of each field, and what needs work before it can be used.
        calls: which blocks go together in a call: command, execution profile, HPC profile.
    """

    tables: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    comments: dict[tuple[str, str, str], str] = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)

    def count(self, outcome: str) -> int:
        """How many fates have this outcome."""
        return sum(fate.outcome == outcome for fate in self.fates)

    def put(self, kind: str, name: str, fields: dict[str, Any]) -> None:
        self.tables.setdefault(kind, {})[name] = fields


def convert(documents: Sequence[QcscDocument]) -> Conversion:
    """Convert all documents. Every given field gets one or more fates."""
    fates, made = Fates(), Conversion()
    read = {slug: [QcscFields(d, fates) for d in documents if d.slug == slug] for slug in _ORDER}
    commands = [(each.name, read_command(each)) for each in read[COMMAND]]
    programs = [read_program(each) for each in read[EXECUTION]]
    places = [read_place(each) for each in read[HPC]]
    for name, fields in commands:
        made.put("command", name, fields)
    keys = {name: (fields["command_name"], fields["executable_key"]) for name, fields in commands}
    for program in programs:
        _leave_out_others(program, places, keys)
        program.shape_for([place for place in places if _runs_there(program, place, keys)])
        made.put("execution-profile", program.name, program.block())
        if not any(_runs_there(program, place, keys) for place in places):
            program.tell_nowhere()
    taken = {place.name for place in places}
    for place in places:
        there = [each for each in programs if _runs_there(each, place, keys)]
        _put_place(place, there, keys, taken, made)
    for each in read[RUNTIME]:
        for kind, name, fields in read_runtime(each):
            made.put(kind, name, fields)
    for each in (each for slug in _ORDER for each in read[slug]):
        each.tell_the_rest()
    made.comments |= check(made.tables, made.calls, fates)
    made.fates = sorted(fates.told, key=_by_document(documents))
    return made


_ORDER = (COMMAND, EXECUTION, HPC, RUNTIME)


def _by_document(documents: Sequence[QcscDocument]) -> Any:
    """The sort key: documents by type, their fields in their order, then our tables."""
    ordered = sorted(documents, key=lambda each: _ORDER.index(each.slug))
    place = {
        (document.title, name): (number, position)
        for number, document in enumerate(ordered)
        for position, name in enumerate(document.fields)
    }
    first = {document.title: number for number, document in enumerate(ordered)}
    after = (len(documents), 0)
    return lambda fate: place.get(
        (fate.document, fate.field),
        (first[fate.document], 999) if fate.document in first else after,
    )


def _runs_there(program: Program, place: Place, keys: dict[str, tuple[str, str]]) -> bool:
    """Whether a command of this execution profile has its program at that place."""
    return bool(_keys_there(program, place, keys)) and not program.not_for(place)


def _keys_there(program: Program, place: Place, keys: dict[str, tuple[str, str]]) -> list[str]:
    return [
        key
        for command, key in keys.values()
        if command == program.command_name and key in place.executables
    ]


def _leave_out_others(
    program: Program, places: Sequence[Place], keys: dict[str, tuple[str, str]]
) -> None:
    """Report where an execution profile was not merged into an HPC profile that has its program."""
    for place in places:
        if _keys_there(program, place, keys) and (why := program.not_for(place)):
            text = f"is not in {place.table}: {why}"
            program.fields.tell_of_default("launcher", "left out", why=text)


# --- an HPC profile, once for each set of programs that fit together


@dataclass(slots=True)
class _Variant:
    """One HPC profile of ours, with the programs that it serves."""

    launchers: dict[str, str] = field(default_factory=dict)  # by side: cpu, gpu
    wishes: dict[tuple[str, str], Wish] = field(default_factory=dict)  # by side and executable key
    programs: list[Program] = field(default_factory=list)

    def takes(self, side: str, launcher: str, keys: Iterable[str], wish: Wish) -> bool:
        """Add one more program, if that changes nothing for the others; returns whether."""
        keys = list(keys)
        if launcher and self.launchers.get(side, launcher) != launcher:
            return False
        if any(self.wishes.get((side, key), wish) != wish for key in keys):
            return False
        if launcher:
            self.launchers[side] = launcher
        self.wishes |= {(side, key): wish for key in keys}
        return True


def _put_place(
    place: Place,
    programs: Sequence[Program],
    keys: dict[str, tuple[str, str]],
    taken: set[str],
    made: Conversion,
) -> None:
    """Add the HPC profile, and further ones for programs that do not fit; `taken`: used names."""
    variants = [_Variant()]
    for program in programs:
        used = _keys_there(program, place, keys)
        launcher, wish = program.launcher_at(place), program.wish
        for variant in variants:
            if variant.takes(program.side, launcher, used, wish):
                break
        else:
            variant = _Variant()
            variant.takes(program.side, launcher, used, wish)
            variants.append(variant)
        variant.programs.append(program)
    for number, variant in enumerate(variants):
        name = place.name if number == 0 else _free_name(place.name, taken)
        taken.add(name)
        made.put("hpc-profile", name, _variant_block(place, variant))
        _tell_variant(name, number, place, variant, keys, made)


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _variant_block(place: Place, variant: _Variant) -> dict[str, Any]:
    block = deepcopy(place.block)
    gpu = block.setdefault("gpu", {})
    for side, launcher in variant.launchers.items():
        (gpu if side == "gpu" else block)["launcher"] = launcher
    for (side, key), wish in variant.wishes.items():
        where = gpu.setdefault("executables", {}) if side == "gpu" else block["executables"]
        where[key] = wish.entry(place.executables[key])
    for program in variant.programs:
        if program.secrets:
            block.setdefault("secret_environment", {}).update(program.secrets)
    if not gpu:
        del block["gpu"]
    # Inner tables last, as TOML has it.
    return dict(sorted(block.items(), key=lambda item: isinstance(item[1], dict)))


def _tell_variant(
    name: str,
    number: int,
    place: Place,
    variant: _Variant,
    keys: dict[str, tuple[str, str]],
    made: Conversion,
) -> None:
    table = f"[hpc-profile.{name}]"
    for program in variant.programs:
        program.tell_place(table, place)
        if number:
            program.fields.tell_of_default(
                "launcher",
                "decide",
                table,
                f"needs another launcher line, modules or set-up than the other execution"
                f" profiles of {place.name}: give {name} as the HPC profile of its calls",
            )
        made.calls += [
            (command, program.name, name)
            for command, (command_name, key) in keys.items()
            if command_name == program.command_name and key in place.executables
        ]
