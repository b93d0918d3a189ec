"""Checks of the values in blocks, and models that refuse unknown fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from hpc_prefect.job.spec import (
    launcher_problems,
    parse_memory,
    parse_walltime,
    share_launcher_problems,
)

T = TypeVar("T")

#: True while a document of the server is read.
_LOADING: ContextVar[bool] = ContextVar("hpc_prefect_loading", default=False)

#: Fields that Prefect adds to the values of a block.
_PREFECT_KEYS = frozenset(
    {"block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous"}
)

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

#: Bash refuses to set the first six, uses the next for itself, and computes the others whenever
#: they are read.
_SHELL_OWN = re.compile(
    "BASHOPTS|BASH_VERSINFO|EUID|PPID|SHELLOPTS|UID|POSIXLY_CORRECT|"
    "_|BASHPID|BASH_ARGV0|BASH_COMMAND|BASH_SUBSHELL|DIRSTACK|EPOCHREALTIME|EPOCHSECONDS|FUNCNAME|"
    "GROUPS|HISTCMD|LINENO|PIPESTATUS|RANDOM|SECONDS|SRANDOM"
)


def names_near(name: str, known: Iterable[str]) -> list[str]:
    """At most three of `known` that look like `name`, the best first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: near names, or else all known ones."""
    known = sorted(known)
    if near := names_near(name, known):
        return "; did you mean " + " or ".join(repr(each) for each in near) + "?"
    return f"; there are: {', '.join(known)}" if known else "; there are none"


def is_loading() -> bool:
    """Whether a document of the server is being read; then `resolve` checks its values later."""
    return _LOADING.get()


@contextmanager
def tolerant() -> Iterator[None]:
    """Inside, unknown fields are left out and values not checked, for documents of the server."""
    token = _LOADING.set(True)
    try:
        yield
    finally:
        _LOADING.reset(token)


#: Words of titles with capital letters.
_ABBREVIATIONS = {
    word.lower(): word
    for word in ("API", "CPU", "GPU", "GPUs", "IBM", "LLIO", "MPI", "PBS", "PJM", "QoS", "QPU")
} | {"qpus": "QPUs", "qrmi": "QRMI", "sigterm": "SIGTERM"}


def title_in_words(name: str, _: object) -> str:
    """`gpus_per_node` as a form shows it: `GPUs per node`."""
    words = [_ABBREVIATIONS.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


class StrictModel(BaseModel):
    """A model that refuses unknown fields at construction and suggests known ones.

    Pydantic's `extra="forbid"` has no suggestions and would also refuse old documents.
    """

    # No input values in messages: a profile's input holds its secrets.
    model_config = ConfigDict(
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        field_title_generator=title_in_words,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if is_loading() or not isinstance(values, Mapping):
            return handler(values)
        fields = cls.model_fields
        unknown = [key for key in values if key not in fields and key not in _PREFECT_KEYS]
        if not unknown:
            return handler(values)
        errors = [
            _error((str(key),), f"there is no such field{suggestion(str(key), fields)}")
            for key in unknown
        ]
        try:
            handler({key: value for key, value in values.items() if key in fields})
        except ValidationError as error:
            errors += [_error(each["loc"], each["msg"]) for each in error.errors()]
        raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)


#: The schemas that `StoredModel.model_json_schema` has made, by class and arguments.
_schemas: dict[tuple[Any, ...], dict[str, Any]] = {}


class StoredModel(StrictModel):
    """The base of blocks, whose stored documents are read tolerantly."""

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Read a document of the server, tolerantly; Prefect loads blocks through this method."""
        with tolerant():
            return super().model_validate(obj, **options)

    @classmethod
    def model_json_schema(cls, *given: Any, **options: Any) -> dict[str, Any]:
        """The schema, made once: Prefect calls this for each field of each block that it writes.

        For an HPC profile that is a tenth of a second. A copy, because Prefect changes it.
        """
        asked = (cls, given, tuple(options.items()))
        if asked not in _schemas:
            _schemas[asked] = _as_a_form_shows_it(super().model_json_schema(*given, **options))
        return deepcopy(_schemas[asked])


def _as_a_form_shows_it(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with descriptions that Prefect's form shows well.

    The form makes a paragraph of each line of a field's description, so the lines are joined; and
    it shows backquotes in the description of a group, so those are left out.
    """
    groups = schema.get("definitions", schema.get("$defs", {})).values()
    for each in (schema, *groups):
        for field in each.get("properties", {}).values():
            if "description" in field:
                field["description"] = " ".join(field["description"].split())
    for group in groups:
        if "description" in group:
            group["description"] = " ".join(group["description"].replace("`", "").split())
    return schema


def _error(where: tuple[int | str, ...], text: str) -> InitErrorDetails:
    # Without a context the text is not treated as a template.
    return InitErrorDetails(type=PydanticCustomError("field", text), loc=where, input=None)


def field_errors(error: ValidationError) -> list[tuple[str, str]]:
    """Each error of pydantic as (dotted field, sentence), without values of the input."""
    found = []
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        text = each["msg"].removeprefix("Value error, ")
        found.append((".".join(str(part) for part in each["loc"]), text))
    return found


def sentence(field: str, text: str) -> str:
    """`field: text`, unless the text already begins with the field's name."""
    return text if not field or text.startswith(field) else f"{field}: {text}"


# --- values. Each function lists problems; the annotated types raise them at construction, and
# --- `resolve` calls the same functions for blocks that came from the server.


def walltime_problems(text: str) -> list[str]:
    """What is wrong with a walltime."""
    return _raised(parse_walltime, text)


def walltime_limit_problems(text: str) -> list[str]:
    """What is wrong with a limit on walltimes; empty means that there is none, or none known."""
    return walltime_problems(text) if text.strip() else []


def memory_problems(text: str) -> list[str]:
    """What is wrong with a memory size."""
    return _raised(parse_memory, text)


def _raised(parse: Callable[[str], object], text: str) -> list[str]:
    try:
        parse(text)
    except ValueError as error:
        return [str(error)]
    return []


def text_problems(what: str, text: str) -> list[str]:
    """Why a text cannot be an argument, a path or a value of the environment."""
    if "\0" in text:
        return [f"{what} has a NUL byte, which no program can be given"]
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return [f"{what} has a lone surrogate (half of a character), which cannot be written"]
    return []


def variable_problems(name: str) -> list[str]:
    """What is wrong with the name of an environment variable."""
    if _IDENTIFIER.fullmatch(name) is None:
        return [f"{name!r} is no name for a variable: use letters, digits and _, no digit first"]
    ours = name.startswith(("_hp_", "_HP_"))
    if _SHELL_OWN.fullmatch(name) or ours:
        whose = "the job script" if ours else "the shell"
        return [f"{name!r} belongs to {whose} and cannot be set; choose another name"]
    return []


def environment_problems(environment: Mapping[str, object]) -> list[str]:
    """The problems of an environment's names and values; never contains a value."""
    problems = []
    for name, value in environment.items():
        if not isinstance(name, str):  # such as in a call, which no schema has checked
            problems.append(f"{name!r} is no name for a variable: it must be text")
            continue
        problems += variable_problems(name)
        if not isinstance(value, str):
            problems.append(f"{name!r} must be text, not {type(value).__name__}: put it in quotes")
        else:
            problems += text_problems(f"the value of {name!r}", value)
    return problems


def path_problems(path: str) -> list[str]:
    """What is wrong with an executable's path."""
    if not path.strip():
        return ["the path is empty"]
    if not path.startswith("/") and "/" in path:
        return [f"{path!r} is relative: write an absolute path, or a bare name found on PATH"]
    return text_problems("the path", path)


def _checked(find: Callable[[Any], list[str]]) -> AfterValidator:
    def check(value: T) -> T:
        if not is_loading() and (problems := find(value)):
            raise PydanticCustomError("value", "; ".join(problems))
        return value

    return AfterValidator(check)


def _form(pattern: str) -> FieldInfo:
    """A pattern that Prefect's form checks before it saves; the functions above check more."""
    extra: JsonDict = {"pattern": rf"^\s*(?:{pattern})\s*$"}
    info: FieldInfo = Field(json_schema_extra=extra)
    return info


_A_WALLTIME = r"(?:\d+-\d+:|\d+:)?\d{1,2}:\d{2}"
Walltime = Annotated[str, _checked(walltime_problems), _form(_A_WALLTIME)]
WalltimeLimit = Annotated[str, _checked(walltime_limit_problems), _form(f"(?:{_A_WALLTIME})?")]
Memory = Annotated[
    str, _checked(memory_problems), _form(r"(?:\d+(?:\.\d+)?\s*[KMGTkmgt][iI]?[bB]?)?")
]
Environment = Annotated[dict[str, str], _checked(environment_problems)]
Launcher = Annotated[str, _checked(launcher_problems)]
LauncherInAllocation = Annotated[str, _checked(share_launcher_problems)]
Path = Annotated[str, _checked(path_problems)]
