"""The subcommands of ``lit-dense``."""

VERBS = ("fit", "validate", "test", "predict", "check", "compare", "list")
