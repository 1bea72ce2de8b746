"""Reads the command line, and explains what is wrong with it in one sentence and a hint.

An option that a command does not have is looked for among its own, and among those of the other commands.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from rtc_server.usage.spelling import did_you_mean, nearest

_WRONG_USE: Final = 2
_LONGEST: Final = 80


class Parser(argparse.ArgumentParser):
    """Without abbreviations, for ``--turn-secret`` would pass for ``--turn-secret-file``; and without the list of all
    options in front of each error. ``elsewhere``: what there is in place of an option that this command does not have.
    """

    def __init__(self, *, elsewhere: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(**more | {"allow_abbrev": False})
        self._elsewhere = elsewhere or {}

    def error(self, message: str) -> NoReturn:
        """End with status 2, the message, and where help is."""
        message = re.sub(r"ignored explicit argument '.*'$", "it takes no value", message, flags=re.DOTALL)
        self.refuse(message, f"{self.prog} --help lists what there is.")

    def refuse(self, message: str, hint: str) -> NoReturn:
        self.exit(_WRONG_USE, f"error: {self.prog}: {message.rstrip('.')}.\nhint: {hint}\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise ArgumentError for what is none of the choices."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        what = "command" if action.dest == "command" else "value"
        raise argparse.ArgumentError(
            None if what == "command" else action,
            f"there is no {what} {str(value)[:_LONGEST]!r}.{did_you_mean(str(value), choices)} "
            f"There {'are' if len(choices) > 1 else 'is'}: {', '.join(choices)}",
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As the base class does it; what is left over is explained by the command that it was given to."""
        arguments = list(sys.argv[1:] if args is None else args)
        commands = dict(self._commands())
        first = f"{self.prog} {next(iter(commands), '')}"
        if commands and not arguments:
            self.refuse("which command", f"{first}, or another: {self.prog} --help lists them.")
        if commands and _is_option(arguments[0]) and not self._has(arguments[0]):
            self.refuse("the command comes first, then its options", f"As {first} {_name(arguments[0])}.")
        found, left = self.parse_known_args(arguments, namespace)
        if left:
            commands.get(getattr(found, "command", ""), self)._refuse_left_over(left, commands)
        return found

    def _has(self, option: str) -> bool:
        return option in self._option_string_actions

    def _commands(self) -> Iterator[tuple[str, Parser]]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.items()

    def _refuse_left_over(self, left: Sequence[str], commands: Mapping[str, Parser]) -> NoReturn:
        # Of an option its name alone: what it is set to may be a secret.
        options = [_name(text) for text in left if _is_option(text)]
        if not options:
            self.refuse(
                f"{left[-1][:_LONGEST]!r} is one argument too many",
                f"Options have names: {self.prog} --help lists them.",
            )
        wrong = options[0]
        if wrong in self._elsewhere:
            self.refuse(f"there is no option {wrong}", self._elsewhere[wrong])
        similar = nearest(wrong, self._option_string_actions)
        owners = [name for name, command in commands.items() if command._has(wrong)]
        if owners:
            self.refuse(f"there is no option {wrong} here", f"It belongs to: {', '.join(owners)}.")
        if similar is not None:
            self.refuse(f"there is no option {wrong}", f"Did you mean {similar}?")
        self.error(f"there is no option {wrong}")


def _is_option(text: str) -> bool:
    return text.startswith("-") and text.strip("-") != ""


def _name(option: str) -> str:
    return option.partition("=")[0][:_LONGEST]
