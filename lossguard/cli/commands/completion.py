"""`lossguard completion`: the completion of a shell, and the words that it offers.

eval "$(lossguard completion bash)"                            in ~/.bashrc
eval "$(lossguard completion zsh)"                             in ~/.zshrc, after compinit
lossguard completion fish > ~/.config/fish/completions/lossguard.fish
"""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, pairwise
from typing import Any

from lossguard.cli.arguments import MODULE_OF, parser_of
from lossguard.cli.connection import connected
from lossguard.cli.named_run import LATEST, Found, find, listed
from lossguard.client.client import Client
from lossguard.vocabulary.errors import LossguardError

# Words that may stand next on a command line: commands and options, and what the collector knows.

SECONDS = 1.0
"""For which a shell waits for the collector."""
NUM_RUNS = 1_000
"""Maximum number of runs whose names are offered."""
SAFE = re.compile(r"[A-Za-z0-9._/@+-]+")
"""Names that need no quotes in any shell; others are not offered."""


def candidates(words: Sequence[str]) -> list[str]:
    """The words that can replace the last one of `words`, which follow `lossguard` on the command line."""
    *before, current = words or [""]
    if not before:
        return _beginning(current, MODULE_OF)
    if before[0] not in MODULE_OF or "--" in before:
        return []
    (commands,) = (each for each in parser_of(before[:1])._actions if isinstance(each, argparse._SubParsersAction))
    parser = commands.choices[before[0]]
    if (option := _option_before(parser, before[-1])) is not None:
        return _beginning(current, _values(option, before))
    if current.startswith("-"):
        return _beginning(current, (name for action in parser._actions for name in action.option_strings))
    return _beginning(current, _positionals(parser, before))


def _option_before(parser: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option of this name, if it takes a value."""
    named = (each for each in parser._actions if word in each.option_strings)
    return next((each for each in named if each.nargs != 0), None)


def _values(action: argparse.Action, before: Sequence[str]) -> Iterable[str]:
    if action.choices is not None:
        return [str(each) for each in action.choices]
    if action.dest == "project":
        return _names(run["project"] for run in _asked(before, lambda client: _newest(client, "project")))
    return _run_names(before) if action.dest == "run_id" else []


def _positionals(parser: argparse.ArgumentParser, before: Sequence[str]) -> Iterable[str]:
    """The values of the argument that stands next."""
    actions = [each for each in parser._actions if not each.option_strings]
    if not actions:
        return []
    given = [  # no options, and no values of options
        word for last, word in pairwise(before) if not word.startswith("-") and _option_before(parser, last) is None
    ]
    action = actions[min(len(given), len(actions) - 1)]
    if action.dest == "which_run":
        return _run_names(before)
    if action.dest == "words":
        from lossguard.cli.commands.policy import ACTIONS

        of_run = not {"--project", "--collector"} & set(before)
        if of_run and not given:
            return _run_names(before)
        return ACTIONS if len(given) == of_run else []
    if action.dest == "metrics":
        return _names(_asked(before, lambda client: find(client, given[0])["metrics"]))
    return [str(each) for each in action.choices or ()]


def _run_names(before: Sequence[str]) -> Iterable[str]:
    runs = _asked(before, lambda client: _newest(client, "id,name"))
    return _names([*(run["id"] for run in runs), *(run["name"] or "" for run in runs), LATEST])


def _newest(client: Client, fields: str) -> Iterable[Found]:
    """These fields of the newest runs."""
    return islice(listed(client, [("fields", fields)], limit=NUM_RUNS), NUM_RUNS)


def _names(found: Iterable[str]) -> list[str]:
    """Return the names given by a trainer that would not be taken for options."""
    return [name for name in found if not name.startswith("-")]


def _asked(before: Sequence[str], question: Callable[[Client], Iterable[Any]]) -> list[Any]:
    """Return what the collector answers within SECONDS; nothing if it does not."""
    values = dict(pairwise(before))
    options = argparse.Namespace(url=values.get("--url"), token=values.get("--token"))
    try:
        with connected(options, timeout=SECONDS) as client:
            return list(question(client))
    except LossguardError:
        return []


def _beginning(current: str, words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for word in words if word.startswith(current) and SAFE.fullmatch(word)))


# The command.

BASH = """\
_lossguard() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(lossguard completion bash -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _lossguard lossguard
"""
ZSH = """\
#compdef lossguard
_lossguard() {
    local -a candidates
    candidates=("${(@f)$(lossguard completion zsh -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${candidates[1]}" ]]; then
        compadd -a candidates
    else
        _files
    fi
}
if [[ "${funcstack[1]}" == _lossguard ]]; then
    _lossguard "$@"
else
    compdef _lossguard lossguard
fi
"""
FISH = """\
function __lossguard_candidates
    set -l words (commandline -opc) (commandline -ct)
    lossguard completion fish -- $words[2..-1] 2>/dev/null
end
complete -c lossguard -f -a '(__lossguard_candidates)'
complete -c lossguard -n '__fish_seen_subcommand_from launch watch import sync trim export' -F
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def add_to(commands: Any) -> None:
    parser = commands.add_parser("completion", help="print the completion script of a shell")
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="the shell that is to read it")
    words = parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)  # with these the scripts ask
    words.required = False  # without a shell, the error names the shell alone
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.words:
        words = options.words[1:] if options.words[0] == "--" else options.words
        print("\n".join(candidates(words)))
    else:
        print(SCRIPTS[options.shell], end="")
    return 0
