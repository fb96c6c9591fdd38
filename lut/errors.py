"""The errors that are the user's to mend: each says what is wrong, what was found and what to do."""


class LatpruneError(Exception):
    """A mistake in what the user asked for or handed over; the command line prints it and exits with 2."""


class TaskError(LatpruneError):
    """The task file or the model in it cannot be used."""


class TableError(LatpruneError):
    """A table file cannot be read, or is not the one for this device."""


class MissingFamilyError(TableError):
    """A unit's family has no measurement in the table."""


class BudgetError(LatpruneError):
    """The budget cannot be met, or asks for nothing."""


class BackendError(LatpruneError):
    """A runtime is not installed, or cannot do what was asked here."""


class RunError(LatpruneError):
    """A run directory is unfinished, finished already, damaged, or belongs to another network."""
