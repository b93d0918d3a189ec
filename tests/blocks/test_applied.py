"""What is replaced on the server is what the file made; what others made is told, and stays."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from hpc_prefect.block_files.applied import Made, Value, read_made
from hpc_prefect.block_files.apply import BlockChange, Stored, apply_document, block_values, compare
from hpc_prefect.block_files.document import Item, read_document
from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.errors import ConfigurationError


def profile(**fields: object) -> Item:
    return Item("hpc-profile", "hpc", HPCProfileBlock(scheduler="local", **fields))


def stored(item: Item) -> Stored:
    return block_values(item.value)


def having_made(*items: Item, file: str = "/a") -> Made:
    made = Made(file)
    for item in items:
        made.note(f"{item.kind}.{item.name}", block_values(item.value))
    return made


def told(change: BlockChange) -> list[str]:
    return [one.describe() for one in change.differences]


def test_an_own_value_is_replaced_without_a_question() -> None:
    before, after = profile(max_walltime="1:00:00"), profile(max_walltime="2:00:00")
    change = compare(after, stored(before), having_made(before))
    assert (change.kind, change.conflicts) == ("updated", ())
    assert told(change) == ['max_walltime: "1:00:00" → "2:00:00"']


def test_an_own_value_of_long_ago_is_still_an_own_one() -> None:
    """The file was applied to one server, edited, and is applied to another one."""
    first, second, third = (profile(max_walltime=f"{n}:00:00") for n in (1, 2, 3))
    assert compare(third, stored(first), having_made(first, second)).conflicts == ()


def test_what_somebody_else_changed_is_a_conflict() -> None:
    mine, theirs = profile(max_walltime="1:00:00"), profile(max_walltime="9:00:00")
    change = compare(mine, stored(theirs), having_made(mine))
    (conflict,) = change.conflicts
    assert conflict.describe() == 'max_walltime: "9:00:00" → "1:00:00"'


def test_what_this_file_never_made_is_a_conflict_unless_it_is_the_same() -> None:
    assert compare(profile(), stored(profile()), Made()).kind == "unchanged"
    assert compare(profile(), stored(profile(login_shell=True)), Made()).conflicts


def test_executables_of_two_files_are_merged() -> None:
    mine, theirs = profile(executables={"a": "/a"}), profile(executables={"b": "/b"})
    change = compare(mine, stored(theirs), Made())
    assert (change.kind, change.conflicts) == ("updated", ())
    assert told(change) == ['executables.a: nothing → "/a"']
    assert change.kept == (("executables", "b"),)


def test_one_key_with_two_paths_is_a_conflict_of_that_key() -> None:
    mine, theirs = profile(executables={"a": "/a"}), profile(executables={"a": "/other"})
    for made in (Made(), having_made(profile())):
        (conflict,) = compare(mine, stored(theirs), made).conflicts
        assert conflict.describe() == 'executables.a: "/other" → "/a"'


def test_an_executable_that_the_file_made_and_no_longer_has_is_removed() -> None:
    both, one = profile(executables={"a": "/a", "b": "/b"}), profile(executables={"a": "/a"})
    change = compare(one, stored(both), having_made(both))
    assert told(change) == ['executables.b: "/b" → nothing']
    assert (change.conflicts, change.kept) == ((), ())


def test_an_executable_that_another_file_made_too_stays() -> None:
    both, one = profile(executables={"a": "/a", "b": "/b"}), profile(executables={"a": "/a"})
    made = having_made(both)
    made.elsewhere.append(having_made(both, file="/other"))
    change = compare(one, stored(both), made)
    assert (change.kind, change.kept) == ("unchanged", (("executables", "b"),))


def test_a_field_that_an_older_version_did_not_have_may_be_set() -> None:
    made = having_made(profile())
    del made.values["hpc-profile.hpc"][("slurm", "qpu")]
    after = Item("hpc-profile", "hpc", HPCProfileBlock(scheduler="slurm", slurm={"qpu": ["q"]}))
    before = stored(Item("hpc-profile", "hpc", HPCProfileBlock(scheduler="slurm")))
    changed = [one.where for one in compare(after, before, made).conflicts]
    assert ("slurm", "qpu") not in changed


def test_a_secret_is_told_apart_and_never_shown() -> None:
    before = profile(secret_environment={"TOKEN": "hunter2"})
    after = profile(secret_environment={"TOKEN": "hunter3"})
    mine = compare(after, stored(before), having_made(before))
    theirs = compare(after, stored(before), having_made(after))
    assert (mine.conflicts, len(theirs.conflicts)) == ((), 1)
    assert told(mine) == ["secret_environment: (secret, not shown) → (secret, not shown)"]


def test_the_notes_are_read_again_and_hold_no_secret(tmp_path: Path) -> None:
    folder, file = tmp_path / "applied", tmp_path / "blocks.toml"
    item = profile(secret_environment={"TOKEN": "hunter2"})
    made = read_made(folder, file)
    made.note("hpc-profile.hpc", block_values(item.value))
    made.save()
    (note,) = folder.iterdir()
    assert note.stat().st_mode & 0o077 == 0
    assert "hunter2" not in note.read_text()
    again = read_made(folder, file)
    value = block_values(item.value)[("secret_environment",)]
    assert again.has("hpc-profile.hpc", ("secret_environment",), value)
    assert not again.has("hpc-profile.hpc", ("secret_environment",), Value("x", secret=True))


def test_the_notes_of_files_that_are_gone_and_torn_notes_count_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "applied"
    for name in ("there.toml", "gone.toml"):
        made = read_made(folder, tmp_path / name)
        made.note("command.c", {("executable_key",): Value('"x"')})
        made.save()
    (tmp_path / "there.toml").touch()
    (folder / "torn.json").write_text('{"file": "/x", "val')
    (folder / "odd.json").write_text(json.dumps({"file": "/x", "salt": "", "values": [1]}))
    known = read_made(folder, tmp_path / "mine.toml")
    assert [one.file for one in known.elsewhere] == [str(tmp_path / "there.toml")]


@pytest.mark.usefixtures("prefect_server")
async def test_two_projects_share_a_profile_and_a_third_is_refused(tmp_path: Path) -> None:
    name = f"hpc-{uuid.uuid4().hex[:8]}"
    head = f"[command.cmd-{name}]\ncommand_name = 'c'\nexecutable_key = 'a'\n"
    text = f"[hpc-profile.{name}]\nscheduler = 'local'\n"

    async def apply(more: str, made: Made | None = None, *, force: bool = False) -> list[str]:
        document = read_document(head + text + more, here="/h", venv="/v", environ={}, source="f")
        done = await apply_document(document, report=lambda change: None, made=made, force=force)
        return [change.kind for change in done]

    assert await apply("executables = {a = '/a'}\n") == ["created", "created"]
    assert await apply("executables = {b = '/b'}\n") == ["unchanged", "updated"]
    both = await HPCProfileBlock.aload(name)
    assert both.executables == {"a": "/a", "b": "/b"}

    with pytest.raises(ConfigurationError) as caught:
        await apply("max_walltime = '1:00:00'\nexecutables = {a = '/other'}\n")
    assert str(caught.value).startswith(
        f"f: 1 problem, nothing was saved:\n"
        f"  - [hpc-profile.{name}] was not made by this file, and would be replaced:\n"
        '      executables.a: "/a" → "/other"\n'
        '      max_walltime: "" → "1:00:00"\n'
        "`hpc-prefect blocks diff` shows all that would change."
    )
    assert (await HPCProfileBlock.aload(name)).executables == {"a": "/a", "b": "/b"}

    assert await apply("executables = {a = '/other'}\n", force=True) == ["unchanged", "updated"]
    assert (await HPCProfileBlock.aload(name)).executables == {"a": "/other", "b": "/b"}
