"""What can go wrong, by kind.  Every message names the argument, what was found, and the cure."""


class LossError(ValueError):
    """The closure's loss cannot be used: wrong shape, too few bits, or not finite.  Nothing was written."""


class ParameterError(ValueError):
    """The parameters cannot be probed: none, frozen, not real numbers, scripted or sharded, or never consumed."""


class JournalError(ValueError):
    """A journal cannot be used: of another run, damaged, or in use.  The weights and the file are as they were."""
