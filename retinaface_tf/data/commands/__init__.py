"""The words `convert widerface`, `convert custom` and `inspect` of the command line. Importing them is cheap.

Each module has `HELP`, `add_arguments(parser)` and `run(args) -> int`. Bad input is a ValueError or an OSError with one
line; whoever calls `run` prints it.
"""
