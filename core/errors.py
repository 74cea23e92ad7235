"""The two ways a run ends early. Each message says the value, the bound, the reason and the remedy."""


class ConfigError(Exception):
    """The arguments or the configuration are wrong (exit code 2). The message holds the path of the key."""


class StageError(Exception):
    """A stage cannot go on (exit code 1). Tables written before it stay as they are."""
