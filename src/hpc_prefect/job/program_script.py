"""The text of `program.sh`, the inner of a job's two scripts: what the user's job does.

It is the user's profile, modules, set-up, environment, secrets, launcher, program and tear-down. It
notes how far it came in the file `phase`. It has the folder as an open descriptor (`HERE`), which
the program does not inherit. `job.script` has the outer script, which runs it.

Data (arguments, paths, environment values) is quoted by `quote` and arrives byte for byte. The site
owner's shell text (set-up lines, module names, the launcher line, tear-down) is written as it
stands. Environments are set in the order of the lines below: a later one wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc_prefect.job import folder as names
from hpc_prefect.job import members
from hpc_prefect.job.spec import JobSpec, launch_line

#: The shell's own code for a command that is not there.
MISSING_CODE = 127

#: The descriptor of the job folder in both scripts. Not 9 or 200, which people use for locks; below
#: 256, because a system may allow no more.
FD = 240
HERE = f"/proc/self/fd/{FD}"
#: Put after a command, so that the program does not inherit the job folder.
_CLOSED = f"{FD}<&-"


def quote(text: str) -> str:
    """One shell word that is exactly `text`, in any POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


#: From here to `_USERS` builtins win over functions and aliases of the same names. Neither can
#: replace an assignment; in POSIX mode special builtins are found first; `\\` prevents an alias.
_OURS = """\
POSIXLY_CORRECT=${POSIXLY_CORRECT-hp}
\\unset -f builtin || \\exit"""
_USERS = "case $POSIXLY_CORRECT in hp) \\unset POSIXLY_CORRECT ;; esac"


def program_text(spec: JobSpec, unset: tuple[str, ...], *, member: bool = False) -> str:
    enter = f"\\builtin cd -- {quote(spec.work_dir)} || \\exit"
    parts = [
        f"# What the job does; {names.SCRIPT} runs it with bash and notes how it ends.",
        _OURS,
        # The scheduler's signals are for the program; this shell waits for what it does then.
        "\\trap : TERM INT HUP XCPU USR1 USR2",
        f"readonly _HP_MEMBER=$1 _HP_AT={HERE}/m/$(($1 / {members.SHARD}))/$1." if member else "",
        enter,  # a profile may have gone elsewhere
        _USERS,
        _setup(spec),
        _environment(spec, unset, keeps_secrets=member),
        enter,
        _members_program(spec) if member else _single_program(spec),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _setup(spec: JobSpec) -> str:
    """The site's modules and set-up, then the program's; a module that fails ends the job here."""
    lines = ["", "# --- set-up, as the HPC profile gives it"]
    for modules, setup in (
        (spec.site.modules, spec.site.setup),
        (spec.executable.modules, spec.executable.setup),
    ):
        for module in modules:
            lines.append(f"module load {quote(module)} || \\builtin exit")
        lines.extend(setup)
    return "\n".join(lines) if len(lines) > 2 else ""


def _environment(spec: JobSpec, unset: tuple[str, ...], *, keeps_secrets: bool) -> str:
    exports = {"OMP_NUM_THREADS": str(spec.resources.threads_per_rank)}
    exports |= spec.site.environment | spec.executable.environment | spec.environment
    lines = [
        "",
        "# --- environment: profile, then executable, then execution profile, then secrets",
        _OURS,
        # A DEBUG trap of a set-up line could skip commands, or have them printed.
        "\\trap - DEBUG ERR RETURN && \\builtin shopt -u extdebug || \\exit",
    ]
    lines += [f"\\unset {' '.join(unset)}"] if unset else []
    lines += [f"\\export {name}={quote(value)}" for name, value in exports.items()]
    for variable, folders in spec.executable.path_prefixes.items():
        joined = quote(":".join(folders))
        lines.append(f'\\export {variable}={joined}"${{{variable}:+:${variable}}}"')
    if spec.secret_names:
        # All members of an array read the secrets; they are removed at its end.
        lines.append(_SECRETS.replace(_REMOVED, "") if keeps_secrets else _SECRETS)
    return "\n".join(lines)


_REMOVED = f"\\builtin command -p rm -f -- {HERE}/{names.SECRETS}\n"

#: First ends what a set-up line may have begun (`set -x`, traps), which would print the values. The
#: text is kept in no variable: set-up may have made it readonly, or a reference to another one.
#: `-p`: the job's PATH may not lead to `rm`.
_SECRETS = f"""\
{{ \\trap - DEBUG ERR RETURN CHLD; \\set +xv; }} 2>/dev/null
case $- in *[xv]*) \\builtin printf '%s\\n' >&2 \\
  'hpc-prefect: a set-up line has commands printed (set -x) for good; no secret was read'
  \\exit 1 ;;
esac
{{ \\set -- "$(< {HERE}/{names.SECRETS})"; }} 2>/dev/null
case $1 in '') \\builtin printf '%s\\n' >&2 'hpc-prefect: the secrets file of this job is gone'
  \\exit 1 ;;
esac
{_REMOVED}\\eval "$1" 2>/dev/null || {{
  \\builtin printf '%s\\n' >&2 'hpc-prefect: a secret cannot be set: has set-up made it readonly?'
  \\exit 1
}}
\\set --"""


def _line(spec: JobSpec) -> str:
    """The shell text that starts the program."""
    words = " ".join(quote(word) for word in (spec.executable.path, *spec.arguments))
    line = f"( \\builtin exec -- {words} )"
    if spec.resources.launch == "mpi":
        line = launch_line(spec.site.launcher, spec.resources, words)
        line = f"{{ \\builtin set -o pipefail || \\builtin exit\n{line}\n}}"
    return line


def _single_program(spec: JobSpec) -> str:
    # Closed last: the redirections before it use the folder's descriptor.
    return _program(spec, _line(spec), f"{HERE}/", then=_CLOSED)


def _members_program(spec: JobSpec) -> str:
    """As a single job's, but the line is read from the file `members` of the member's shard.

    An emptied file would look like a program that ends with 0, so that is tested; a file that is
    cut off elsewhere is a syntax error.
    """
    path = f'"${{_HP_AT%/*}}"/{members.MEMBERS}'
    line = f"{{ \\builtin test -s {path} && \\builtin . {path}; }}"
    return _program(spec, line, '"$_HP_AT"')


def members_text(spec: JobSpec, asked: Sequence[members.MemberSpec], first: int) -> str:
    """What program.sh reads to run one of these members: its environment, folder and line."""
    cases = []
    for index, member in enumerate(asked, first):
        lines = [
            f"\\builtin export {key}={quote(each)}" for key, each in member.environment.items()
        ]
        if member.work_dir != spec.work_dir:
            lines.append(f"\\builtin cd -- {quote(member.work_dir)} || \\builtin exit")
        lines.append(f"{_line(member.job(spec))} {_CLOSED}")
        cases.append(f"{index})\n" + "\n".join(lines) + " ;;\n")
    return "case $_HP_MEMBER in\n" + "".join(cases) + "*) \\builtin exit 1 ;;\nesac\n"


def _program(spec: JobSpec, line: str, at: str, then: str = "") -> str:
    """The program in the foreground; before and after it, the phase is noted.

    `line` starts it; its files' names begin with `at`; `then` follows its redirections.

    A single program is exec'd, so that a name such as `test` is the program on PATH and not the
    builtin. A launcher's line runs in this shell: if it exits or replaces the shell, no code is
    noted. The code is kept in no variable: set-up may have made it readonly, or a reference to
    another one.
    """
    program, phase = spec.executable.path, f"{at}{names.PHASE}"
    plain = f"\\builtin test -f {phase}"  # a FIFO would block
    streams = f">> {at}{names.STDOUT} 2>> {at}{names.STDERR} < /dev/null {then}"
    teardown = "".join(f"{text}\n" for text in spec.site.teardown)
    return f"""\
if ! \\builtin type -P -- {quote(program)} >/dev/null; then
  {plain} && \\builtin printf 'missing %s\\n' "${{LOADEDMODULES:-}}" >> {phase}
  \\exit {MISSING_CODE}
fi
{_MODULES}
{plain} && \\builtin printf 'program\\n' >> {phase} || \\exit
{_USERS}

# --- the program
{line} {streams} \\
  && \\builtin set -- 0 || \\builtin set -- "$?" || \\builtin exit
! {plain} || \\builtin printf 'code %d\\n' "$1" >> {phase}
{f"({chr(10)}{teardown})" if teardown else ""}
\\builtin set +e
\\builtin exit "$1\""""


#: Writes $LOADEDMODULES byte for byte to a file, if it is not empty. An earlier start may have put
#: anything in its place; no error here may end the job.
_MODULES = f"""\
case ${{LOADEDMODULES-}} in '') ;; *)
  {{ \\builtin test ! -L {HERE}/{names.MODULES} && {{ \\builtin test -f {HERE}/{names.MODULES} ||
    \\builtin test ! -e {HERE}/{names.MODULES}; }} &&
    \\builtin printf '%s' "$LOADEDMODULES" >| {HERE}/{names.MODULES}; }} 2>/dev/null ||
    \\builtin : ;;
esac"""


def secrets_text(secrets: dict[str, str]) -> str:
    """The content of the secrets file that the script reads and removes."""
    return "".join(f"\\export {name}={quote(value)}\n" for name, value in secrets.items())
