"""Reads qsub's options and the script's #PBS lines as one request."""

from __future__ import annotations

from hpc_rehearsal.common.text import Refusal, split, unquoted
from hpc_rehearsal.pbs import arrays
from hpc_rehearsal.pbs.formats import getopt
from hpc_rehearsal.pbs.resources import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Record = dict[str, Any]

LETTERS = "a:A:c:C:e:fGhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-c interval]
	[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
	[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
	[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
	[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
	[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
_NAME_LENGTH = 230
_WRONG_OPTION, _WRONG_DIRECTIVE, _NO_ATTRIBUTE = 2, 1, 154
_ATTRIBUTES = ("group_list", "depend", "block", "umask", "sandbox", "stagein", "stageout")


def directives(script: str, prefix: str = "#PBS") -> list[str]:
    """The options in the script, up to its first command."""
    found = []
    for number, line in enumerate(script.split("\n")):
        if line.startswith(prefix):
            found.append(line[len(prefix) :].strip())
        elif not line.strip() or line.lstrip().startswith(("#", ":")) or number == 0 == len(line):
            continue
        else:
            break
    return found


def read(words: list[str], script: str, environment: Mapping[str, str]) -> Record:
    """One request from both; the command line wins.

    It wins for each resource and attribute by itself: `-l walltime` on the command line does not
    replace the script's `-l select`.
    """
    found, _, unknown = getopt(words, LETTERS)
    if unknown:
        said = "".join(f"qsub: invalid option -- '{letter}'\n" for letter in unknown)
        raise Refusal(said + USAGE, _WRONG_OPTION)
    for letter, value in found:
        _check(letter, value)
    prefix = dict(found).get("C", "#PBS")
    inside: list[tuple[str, str]] = []
    for line in directives(script, prefix):
        parts = [unquoted(part) for part in split(line, " \t") if part]
        options, rest, wrong = getopt(parts, LETTERS)
        if rest or wrong:
            raise Refusal(f"qsub: directive error: {line} \n", _WRONG_DIRECTIVE)
        for letter, value in options:
            _check(letter, value)
        inside += options
    return _merged(found, inside, environment)


def _merged(
    outside: list[tuple[str, str]], inside: list[tuple[str, str]], environment: Mapping[str, str]
) -> Record:
    single = {letter: value for letter, value in [*inside, *outside] if letter not in "lWv"}
    resources: dict[str, str] = {}
    attributes: dict[str, str] = {}
    variables: dict[str, str] = {}
    for letter, value in [*inside, *outside]:
        if letter == "l":
            resources.update(pairs(value))
        elif letter == "W":
            attributes.update(_attributes(value))
        elif letter == "v":
            variables.update(_variables(value, environment))
    if any(name not in _ATTRIBUTES for name in attributes):
        # Assumed: the server's words about an attribute that jobs do not have.
        raise Refusal("qsub: Undefined Attribute\n", _NO_ATTRIBUTE)
    if "J" in single and single.get("r") == "n":
        # Read in the source of 23.06, which says it while it reads the options.
        said = f"qsub:  cannot submit non-rerunable Array Job\n{USAGE}"
        raise Refusal(said, _WRONG_OPTION)
    whole = dict(environment) if "V" in single else {}
    return {
        "options": single,
        "resources": list(resources.items()),
        "attributes": attributes,
        "variables": variables,
        "whole": whole,
    }


def _attributes(value: str) -> dict[str, str]:
    """The attributes of one -W. A part without a name continues the list before it, as in
    depend=afterok:1,after:2"""
    found: dict[str, str] = {}
    name = ""
    for part in split(value, ","):
        if "=" in part or not found:
            name, _, text = part.partition("=")
            name = name.strip()
            found[name] = unquoted(text.strip())
        else:
            found[name] += f",{unquoted(part.strip())}"
    return found


def _variables(value: str, environment: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for part in split(value, ","):
        name, equals, text = part.partition("=")
        if equals:
            found[name.strip()] = unquoted(text)
        elif name in environment:  # assumed: a name that is not set is left out
            found[name.strip()] = environment[name]
    for text in found.values():
        marks = text.count("'")
        if marks % 2:
            raise Refusal("qsub: cannot send environment with the job\n", 1)
        if marks:
            raise Refusal("free(): invalid pointer\n", -6)
    return found


def _check(letter: str, value: str) -> None:
    """Raise what qsub itself refuses, before it asks the server. Recorded for -N and -J on the
    command line; assumed to be the same for other options and in a script."""
    wrong = False
    if letter == "N":
        if len(value) > _NAME_LENGTH:
            raise Refusal("qsub: Job name is too long \n", _WRONG_OPTION)
        wrong = not value or not all(c.isascii() and (c.isalnum() or c in "-_.+") for c in value)
    elif letter == "j":
        wrong = value not in ("oe", "eo", "n")
    elif letter == "r":
        wrong = value not in ("y", "n")
    elif letter == "k":
        wrong = value != "n" and not set(value) <= set("oed")
    elif letter == "a":
        wrong = not value.partition(".")[0].isdecimal()
    elif letter == "p":
        wrong = not value.lstrip("+-").isdecimal()
    elif letter == "J":
        wrong = not arrays.known(value)
    elif letter == "I":
        # Assumed: there is no terminal to give to the job.
        raise Refusal("qsub: standard input and output must be a terminal for an \n", 1)
    if wrong:
        raise Refusal(f"qsub: illegal -{letter} value\n{USAGE}", _WRONG_OPTION)
