"""`hpc-prefect completion`: what a shell offers when TAB is pressed.

The script for a shell is a few lines, which call this command for the words to offer: so they are
never out of date.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hpc_prefect.cli.verbs import Verbs

#: When no words are printed, the shells offer files.
_SCRIPTS = {
    "bash": """\
_hpc_prefect() {
  local IFS=$'\\n'
  COMPREPLY=($(hpc-prefect completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2> /dev/null))
}
complete -o default -F _hpc_prefect hpc-prefect
""",
    "zsh": """\
_hpc_prefect() {
  local -a found
  found=(${(f)"$(hpc-prefect completion words "${(@)words[2,CURRENT]}" 2> /dev/null)"})
  if (( $#found )); then compadd -- $found; else _files; fi
}
compdef _hpc_prefect hpc-prefect
""",
    "fish": """\
function __hpc_prefect_words
  set -l before (commandline -opc)
  hpc-prefect completion words $before[2..-1] (commandline -ct | string collect -a) 2> /dev/null
end
complete -c hpc-prefect -a '(__hpc_prefect_words)'
""",
}
_HOW = {
    "bash": 'eval "$(hpc-prefect completion bash)"     in ~/.bashrc',
    "zsh": 'eval "$(hpc-prefect completion zsh)"      in ~/.zshrc, after compinit',
    "fish": "hpc-prefect completion fish | source     in ~/.config/fish/config.fish",
}


def add(verbs: Verbs, whole: argparse.ArgumentParser) -> None:
    """Add the verb.

    Args:
        whole: the parser of all verbs, whose words are offered.
    """
    lines = "\n".join(f"  {how}" for how in _HOW.values())
    completion = verbs.add_parser(
        "completion",
        help="print the script by which a shell completes this command's words on TAB",
        description=f"Print the script by which a shell completes this command's words on"
        f" TAB:\n\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shells = completion.add_subparsers(required=True, metavar="SHELL")
    for shell in _SCRIPTS:
        shells.add_parser(shell, help=_HOW[shell]).set_defaults(run=_print, shell=shell)
    # Called by those scripts; no word of the line may be read as an option of this command.
    words = shells.add_parser("words", prefix_chars="\0", add_help=False)
    words.add_argument("words", nargs=argparse.REMAINDER)
    words.set_defaults(run=_offer, whole=whole)


def _print(arguments: argparse.Namespace) -> int:
    print(_SCRIPTS[arguments.shell], end="")
    return 0


def _offer(arguments: argparse.Namespace) -> int:
    *before, begun = arguments.words or [""]
    for word in offered(arguments.whole, before, begun):
        print(word)
    return 0


def offered(parser: argparse.ArgumentParser, before: Sequence[str], begun: str) -> list[str]:
    """The words that may come next and begin with `begun`; none where a file name may come."""
    value_of: argparse.Action | None = None
    for word in before:
        if value_of is not None:
            value_of = None
        elif word == "--":
            return []
        elif word.startswith("-"):
            name, sign, _ = word.partition("=")
            option = parser._option_string_actions.get(name)
            value_of = option if option is not None and option.nargs != 0 and not sign else None
        else:
            parser = _actions(parser).get(word, parser)
    if value_of is not None:
        found = list(_values(value_of))
    elif begun.startswith("-"):
        found = [name for name in parser._option_string_actions if name.startswith("--")]
    else:
        found = [
            *_actions(parser),
            *(each for one in _positionals(parser) for each in _values(one)),
        ]
    return [word for word in dict.fromkeys(found) if word.startswith(begun)]


def _actions(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The parsers of a verb's actions by name, without the hidden `completion words`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            known = action._name_parser_map
            return {word: known[word] for word in known if known[word].add_help or word != "words"}
    return {}


def _positionals(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The positional arguments."""
    for action in parser._actions:
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction):
            yield action


def _values(action: argparse.Action) -> Iterable[str]:
    if action.choices is not None:
        return [str(each) for each in action.choices]
    return _KNOWN.get(str(action.metavar), list)()


def _runs() -> Iterator[str]:
    from hpc_prefect.records import runs

    yield "latest"
    for run in runs.select(state=[], where=[], names=[]).runs:
        yield run.id
        yield run.name


def _jobs() -> Iterator[str]:
    from hpc_prefect.operations import list_jobs
    from hpc_prefect.operations.find import work_dirs

    places, _ = work_dirs(".")
    for job in list_jobs(*places):
        yield job.name
        yield job.key


def _sites() -> Iterator[str]:
    from hpc_prefect.sites import all_sites

    return (site.name for site in all_sites())


#: What can be offered for an argument, by its name in the command's help.
_KNOWN: dict[str, Callable[[], Iterable[str]]] = {"RUN": _runs, "JOB": _jobs, "SITE": _sites}
