"""Commands of the Markdown pages: finds them, checks them against the programs' options, and joins them to a script."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from uniad_ray.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

SHELL = ("sh", "bash")
LANGUAGES = (*SHELL, "python", "yaml", "json", "text", "")
NEEDS = ("cloud", "gpu", "a terminal", "your images")
PROGRAMS = ("uniad-ray", "ray", "serve", "curl", "python", "python3.11", "aws", "make", "pip", "source")

_FENCE = re.compile(r"```(\S*)\s*$")
_MARKER = re.compile(r"<!-- (needs|file): (.+) -->\s*$")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_ASSIGNMENT = re.compile(r"\w+=")
_END = "END_OF_BLOCK"


class PageError(Exception):
    """A page has an invalid command or marker."""


@dataclass(frozen=True)
class Block:
    """One code block of a page.

    Attributes:
        line: Line number of its first line of code, from 1.
        language: Language after the fence; `sh` for an indented block of commands.
        lines: Lines of code.
        needs: Requirement that the tests lack; None if the block is run.
        file: File that the reader saves the block as, or None.
    """

    line: int
    language: str
    lines: tuple[str, ...]
    needs: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Command:
    """One simple command of a shell block: its line in the page, and its words without leading assignments."""

    line: int
    words: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """Returns the code blocks of a page, in order.

    Raises:
        PageError: A language or a marker is unknown, or a fence is not closed.
    """
    lines = text.splitlines()
    found: list[Block] = []
    number = 0
    while number < len(lines):
        start = number
        if fence := _FENCE.match(lines[number]):
            number += 1
            while number < len(lines) and lines[number].rstrip() != "```":
                number += 1
            if number == len(lines):
                raise PageError(f"line {start + 1}: a fence is not closed")
            found.append(_block(lines, start, fence[1], lines[start + 1 : number]))
        elif lines[number].startswith("    ") and (number == 0 or not lines[number - 1].strip()):
            while number < len(lines) and lines[number].startswith("    "):
                number += 1
            code = [line[4:] for line in lines[start:number]]
            if code[0].split()[0] in PROGRAMS:
                found.append(_block(lines, start - 1, "sh", code))
        number += 1
    return found


def commands(block: Block) -> list[Command]:
    """Returns the simple commands of a shell block."""
    return list(_commands(block.lines, block.line)) if block.language in SHELL else []


def script(text: str, name: str) -> str:
    """Builds a bash script of the runnable blocks of a page, with the line numbers of the page.

    It leaves out the set-up commands that a reader runs once (`make`, `pip install`, the environment).

    Args:
        text: The page; its first line is a heading.
        name: Name of the page, for the message of a command that fails.
    """
    lines = [""] * len(text.splitlines())
    for block in blocks(text):
        if block.needs is not None:
            continue
        first, after = block.line - 1, block.line - 1 + len(block.lines)
        if block.file is not None or block.language == "python":
            lines[first - 1] = f"cat > {block.file} <<'{_END}'" if block.file else f"python - <<'{_END}'"
            lines[first:after] = block.lines
            lines[after] = _END
        elif block.language in SHELL:
            lines[first:after] = block.lines
            given = commands(block)
            set_up = {command.line for command in given if _is_set_up(command.words)}
            for line in set_up - {command.line for command in given if not _is_set_up(command.words)}:
                lines[line - 1] = ""
    # If the page fails, end its programs; they would keep the output open.
    ended = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    lines[0] = f"set -eEo pipefail; {ended}; trap 'echo \"{name}:$LINENO: $BASH_COMMAND\" >&2' ERR"
    return "\n".join(lines) + "\n"


def check(words: Sequence[str], folder: Path = ROOT) -> None:
    """Checks a command without running it: verbs, options and values, make targets, named files.

    Args:
        words: Words of the command.
        folder: Working directory of the command.

    Raises:
        PageError: The program would reject the command.
    """
    program, *rest = words
    if program == "uniad-ray":
        _parse(cli, rest)
    elif program == "ray":
        _parse(ray_cli(), rest)
        if "--" in rest:
            submit, entry_point = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
            working = re.search(r"--working-dir[ =](\S+)", " ".join(submit))
            check(entry_point, folder / working[1] if working else folder)
    elif program == "serve":
        _parse(serve_cli(), rest)
    elif program == "python" and rest[0].endswith(".py"):
        # The value of a variable is unknown here; the scripts of this project are in jobs/.
        path = ROOT / "jobs" / Path(rest[0]).name if "$" in rest[0] else folder / rest[0]
        if not path.is_file():
            raise PageError(f"there is no {rest[0]}")
        if path.parent.name == "jobs":
            _parse(cli, [path.stem, *rest[1:]])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        if unknown := sorted(set(rest) - set(targets)):
            raise PageError(f"the Makefile has no target {', '.join(unknown)}")
    elif program == "pip":
        missing = [word for word in rest if word.endswith((".lock", ".txt")) and not (ROOT / word).is_file()]
        if missing:
            raise PageError(f"there is no {', '.join(missing)}")


@functools.cache
def ray_cli() -> click.Group:
    """Ray's own command line."""
    with warnings.catch_warnings():
        # Its models warn about the next version of pydantic; readers of the pages never see that.
        warnings.simplefilter("ignore")
        from ray.scripts.scripts import cli as found
    return found


@functools.cache
def serve_cli() -> click.Group:
    """Ray Serve's command line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve.scripts import cli as found
    return found


def options(command: click.Command) -> set[str]:
    """Returns the options of a command and of all its subcommands."""
    found = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for inner in inner_commands(command).values():
        found |= options(inner)
    return {option for option in found if option.startswith("-")} | {"--help"}


def inner_commands(command: click.Command) -> dict[str, click.Command]:
    """Returns the subcommands of a group by name; empty for other commands."""
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {name: inner for name, inner in found.items() if inner is not None}


def _block(lines: list[str], above: int, language: str, code: list[str]) -> Block:
    """Builds a block whose code begins after line `above`, counted from 0, with the marker before it."""
    if language not in LANGUAGES:
        raise PageError(f"line {above + 1}: unknown language {language!r}")
    before = next((line for line in reversed(lines[: max(above, 0)]) if line.strip()), "")
    marker = _MARKER.match(before)
    kind, value = marker.groups() if marker else (None, None)
    if kind == "needs" and value not in NEEDS:
        raise PageError(f"line {above + 1}: unknown requirement {value!r}; use one of {', '.join(NEEDS)}")
    return Block(
        line=above + 2,
        language=language,
        lines=tuple(code),
        needs=value if kind == "needs" else None,
        file=value if kind == "file" else None,
    )


def _commands(code: Sequence[str], first: int) -> Iterator[Command]:
    number = 0
    while number < len(code):
        start, line = number, code[number]
        while line.endswith("\\") and number + 1 < len(code):
            number += 1
            line = line[:-1] + code[number]
        if heredoc := _HEREDOC.search(line):
            while number + 1 < len(code) and code[number + 1].strip() != heredoc[1]:
                number += 1
            number += 1
        yield from (Command(first + start, words) for words in _simple_commands(line))
        number += 1


def _simple_commands(line: str) -> Iterator[tuple[str, ...]]:
    """Yields the words of each command in a line, without assignments, redirections and operators."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for token in [*lexer, ";"]:
        if set(token) <= set("<>&") and set(token) & set("<>"):
            redirected = True
        elif set(token) <= set(";|&()"):
            if words:
                yield tuple(words)
            words = []
        elif redirected:
            redirected = False
        elif words or not _ASSIGNMENT.match(token):
            words.append(token)


def _is_set_up(words: Sequence[str]) -> bool:
    return words[0] in ("make", "pip", "source") or tuple(words[1:3]) == ("-m", "venv")


def _parse(command: click.Command, words: list[str]) -> None:
    """Parses arguments like the program, without running it."""
    try:
        context = click.Context(command)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name, found, words = command.resolve_command(context, words)
            assert found is not None
            command, context = found, click.Context(found, info_name=name, parent=context)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(click.exceptions.Exit):
            command.make_context(command.name, list(words))
    except click.UsageError as error:
        raise PageError(error.format_message()) from error
