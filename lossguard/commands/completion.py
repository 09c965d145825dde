"""`lossguard completion`: the commands, options and runs, completed by the shell.

eval "$(lossguard completion bash)"                            in ~/.bashrc
eval "$(lossguard completion zsh)"                             in ~/.zshrc, after compinit
lossguard completion fish > ~/.config/fish/completions/lossguard.fish
"""

import argparse
from typing import Any

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
        from lossguard.commands.candidates import candidates

        words = options.words[1:] if options.words[0] == "--" else options.words
        print("\n".join(candidates(words)))
    else:
        print(SCRIPTS[options.shell], end="")
    return 0
