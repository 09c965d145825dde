"""The commands of `lossguard`, one module each.

`add_to(commands)` adds the command's parser, with `run=` as its default: a function from the parsed arguments to the
exit code. It may raise one of `errors.ERRORS`: the command line prints its sentence, and ends with its exit code.
"""
