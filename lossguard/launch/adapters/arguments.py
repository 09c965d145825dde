"""Options in a command line that is written for another program."""

from collections.abc import Sequence


def option(command: Sequence[str], *names: str) -> str | None:
    """The value of the last option of one of these names, as `--name value` or `--name=value`; None without one."""
    found = None
    for place, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name in names:
            if equals:
                found = value
            elif place + 1 < len(command):
                found = command[place + 1]
    return found


def has_option(command: Sequence[str], *names: str) -> bool:
    """Whether one of these options is given, with a value or without."""
    return any(argument.partition("=")[0] in names for argument in command)


def values(command: Sequence[str], name: str) -> list[str]:
    """The values of an option that takes several, up to the next option."""
    found: list[str] = []
    for place, argument in enumerate(command):
        if argument == name:
            for value in command[place + 1 :]:
                if value.startswith("-"):
                    break
                found.append(value)
        elif argument.startswith(f"{name}="):
            found.append(argument.partition("=")[2])
    return found
