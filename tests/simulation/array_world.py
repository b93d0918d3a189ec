"""Worlds of arrays: seeds from `mix.ARRAYS` on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from hpc_prefect.job.members import MemberSpec
from simulation import mix
from simulation.array_life import ArrayLife, Shape
from simulation.life import Wanted

if TYPE_CHECKING:
    from simulation.place import Place


def array_lives(place: Place) -> list[ArrayLife]:
    """One flow, or two that want the same array."""
    chance = place.world.chance
    lives = [_life(place, 1)]
    if chance.below("lives", 4) == 0:
        first = lives[0]
        starts = mix.starts(chance, 4)
        same = first.wanted[0], first.members, first.array_shape
        lives.append(ArrayLife(place, 2, *same, starts))
    return lives


def _life(place: Place, number: int) -> ArrayLife:
    wanted = array(place, f"a{number}")
    return ArrayLife(place, number, *wanted, mix.starts(place.world.chance))


def array(place: Place, name: str) -> tuple[Wanted, list[MemberSpec], Shape]:
    """An array that a flow wants, its members, and how it is handed over."""
    chance = place.world.chance
    count = chance.one_of("members", (1, 2, 2, 3, 3, 4, 5, 8))
    wanted = [place.wanted(f"{name}.{index}") for index in range(count)]
    members = [
        MemberSpec(
            key=each.key,
            name=f"{name}[{index}]",
            arguments=(each.key,),
            work_dir=each.spec.work_dir,
            expected_outputs=each.spec.expected_outputs,
        )
        for index, each in enumerate(wanted)
    ]
    place.cluster.outputs[name] = ()
    spec = wanted[0].spec
    options: dict[str, Any] = dict(spec.site.options)
    if most := chance.one_of("largest array", ("", "", "0", "2", "3")):
        options["max_array_size"] = int(most)
    site = dataclasses.replace(spec.site, options=options)
    spec = dataclasses.replace(spec, name=name, expected_outputs=(), site=site)
    shape = Shape(
        per_element=chance.one_of("pack", (1, 1, 2, 3)),
        at_once=chance.one_of("at once", (0, 0, 0, 1, 2)),
        retries=chance.one_of("retries", (0, 0, 1, 2)),
    )
    base = wanted[0].base.rpartition("/")[0]
    return Wanted(name, f"{base}/{name}", spec), members, shape
