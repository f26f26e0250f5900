"""What the files in a run folder are called."""

PLAN = "plan.json"
SAMPLES = "samples.json"
LOCK = "lock"
JOURNAL = "journal"
"""A folder: a file for each writer."""
SPECS = "orders"
"""A folder: what workers are told to do."""
STATE = "state.json"
"""Of earlier versions."""
FORMATS = ("json", "csv", "md", "html")


def result_name(form: str) -> str:
    """The file into which the table is exported.

    >>> result_name("csv")
    'result.csv'
    """
    return f"result.{form}"
