"""The program: which commands there are, and the one place where an error becomes a message and an exit code."""

import io
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from traceback import print_exception
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ckptswap.cli.defaults import HELP, default_map
from ckptswap.cli.terminal import Quiet, Terminal, complain
from ckptswap.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_USAGE, CkptswapError
from ckptswap.messages import listening
from ckptswap.shell import joined
from ckptswap.version import __version__

MOST = 5000  # letters of an error
QUIET = frozenset(("-q", "--quiet"))  # looked for before the flags are read: defaults are told of by then
CLOSED = "stdout is closed, so that the result has nowhere to go: send it to a file, or to /dev/null"
PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
SUMMARIES = {
    "show": "List a checkpoint's tensors: name, layer, kind, shape, dtype, size.",
    "diff": "Compare two checkpoints tensor by tensor: bytes first, then by how much. Or three: BASE A B.",
    "transplant": "Write the recipient with the selected tensors taken from the donor, and print the path.",
    "evaluate": "Score checkpoints on the same samples, with intervals, and their differences, paired.",
    "sweep": "Swap each layer × kind in, one at a time, score the network, and rank what breaks it.",
    "report": "Show what a sweep found, from its folder alone: the answer, the worst cells, the kinds.",
    "plot": "Draw what sweeps found, for a paper. Needs the extra 'plot'.",
    "select": "Find the largest set of a sweep's cells that the donor can replace together.",
    "train": "Train a network to segment, or to reconstruct its input, and print the path of the checkpoint.",
    "demo": "Train a U-Net to segment and one to reconstruct brain MRI, swap every part, rank what breaks.",
    "reproduce": "Train networks for segmentation and auto-encoding, swap every part, judge the paper's claims.",
    "convert": "Write a checkpoint's tensors in the format that the target's name says, bit for bit.",
    "verify": "Read a checkpoint to its end and say what is wrong with it; exit 0 when nothing is, else 2.",
    "doctor": "Print versions, threads, devices and extras: what a bug report needs.",
}
"""The commands, each a function in the module of its name, and the first sentence of its help: a list of commands
loads none of them."""


class Commands(Mapping[str, Any]):
    """The commands by name, each loaded when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if name not in SUMMARIES:
            raise KeyError(name)
        alone = typer.Typer(add_completion=False, **PLAIN)
        alone.command(name)(getattr(import_module(f"ckptswap.cli.{name}"), name))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)


class LazyGroup(TyperGroup):
    """A program that loads the command that is called, and no other."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        # Name and summary are all that a list of commands, or a shell that completes, wants.
        self.commands = {
            name: TyperCommand(name, help=text, rich_markup_mode=None) for name, text in SUMMARIES.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, Commands()[name] if name else None, rest


app = typer.Typer(
    name="ckptswap",
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": list(HELP), "max_content_width": 100},
    **PLAIN,
)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"ckptswap {__version__}")
        raise typer.Exit


@app.callback()
def ckptswap(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Checkpoints as maps from names to tensors: what is in them, what differs, what can be swapped.

    Every command takes --quiet, which keeps all but errors off stderr, and --traceback, which shows where in the
    code an error arose.

    Exit codes: 0 done; 1 'diff --exit-code' found a difference, 'sweep --fail-on' a row; 2 wrong usage or unfit
    input; 3 part of the work failed; 70 a fault of ours; 129 the terminal is gone; 130 interrupted; 141 the reader
    of a pipe is gone; 143 terminated.
    """


class _Terminated(BaseException):
    """SIGTERM or SIGHUP, as an exception, so that half-written files are cleaned up."""


def main() -> None:
    """The entry point of the `ckptswap` program."""
    if any("://" in word for word in sys.argv):
        from ckptswap.remote.address import without_secrets

        sys.argv[1:] = without_secrets(sys.argv[1:])  # which are printed, and written into run folders
    arguments = sys.argv[1:]
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    arguments = [word for word in own if word != "--traceback"] + arguments[len(own) :]
    _occupy_streams()
    if sys.stdout is None:
        complain(f"ckptswap: {CLOSED}")
        sys.exit(EXIT_USAGE)
    signal.signal(signal.SIGTERM, _terminate)
    # A script's `… &` begins with SIGINT ignored; who sends it to us means us, there as anywhere.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # `nohup` has it ignored, and wants it so
        signal.signal(signal.SIGHUP, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the locale lacks a letter of a name
    try:
        program = typer.main.get_command(app)
        is_asked_by_shell = "_CKPTSWAP_COMPLETE" in os.environ  # what could come next
        with listening(Terminal() if QUIET.isdisjoint(own) else Quiet()):
            defaults = {} if is_asked_by_shell else default_map(Commands(), arguments)
            code = program(arguments, prog_name="ckptswap", standalone_mode=False, default_map=defaults) or 0
        if code == EXIT_INTERRUPTED:  # newer typers make a code of Ctrl-C, older ones an exception
            raise KeyboardInterrupt
        sys.stdout.flush()
    except BaseException as error:
        if "--traceback" in own and not isinstance(error, SystemExit | KeyboardInterrupt):
            print_exception(error)
        code = _explain(error)
    _leave(code if isinstance(code, int) else 0)


def _occupy_streams() -> None:
    """A stream that was closed (`>&-`) leaves its number to the next file that is opened: what a library prints
    would then go into a checkpoint. And `print` takes a stderr that is None for stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  for as long as we run


def _terminate(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGHUP):  # a session's end sends both, and files are cleaned up meanwhile
        signal.signal(other, signal.SIG_IGN)
    raise _Terminated(number)


def _explain(error: BaseException) -> int:
    if isinstance(error, CkptswapError):
        text = str(error)  # a file may hold names and numbers that would fill the terminal
        complain(f"ckptswap: {text if len(text) <= MOST else f'{text[: MOST // 2]} … {text[-MOST // 2 :]}'}")
        return error.exit_code
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # typer exits with 1
        return EXIT_PIPE
    if isinstance(error, _Terminated):
        complain("ckptswap: terminated; what was finished is kept")
        return 128 + error.args[0]
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        complain("ckptswap: interrupted; what was finished is kept, and the same command continues")
        return EXIT_INTERRUPTED
    if isinstance(error, SystemExit | typer.Exit):
        code = error.code if isinstance(error, SystemExit) else error.exit_code
        return code if isinstance(code, int) else EXIT_USAGE
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
    elif isinstance(error, OSError):
        complain(f"ckptswap: {error.filename or 'the output'} could not be written ({error.strerror or error})")
    elif hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        where = f" (see `{context.command_path} --help`)" if context else ""
        complain(f"ckptswap: {error.format_message()}{_sides_meant(error, sys.argv[1:]) or where}")
    else:
        complain(f"ckptswap: a fault of ours: {type(error).__name__}: {error}; --traceback shows where, `ckptswap "
            "doctor` prints what a bug report needs")  # fmt: skip
        return EXIT_INTERNAL
    return EXIT_USAGE


def _sides_meant(error: BaseException, words: Sequence[str]) -> str:
    """What somebody meant to type who wrote a command's two sides without their flags; '' elsewhere."""
    sides = [word for word in words[1:3] if not word.startswith("-")]
    if getattr(getattr(error, "param", None), "opts", None) != ["--from"] or len(sides) < 2:
        return ""
    return f" Write `{joined(['ckptswap', words[0], '--from', sides[0], '--to', sides[1], *words[3:]])}`."


def _leave(code: int) -> NoReturn:
    """Exit without a second complaint about a pipe whose reader has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_PIPE
    sys.exit(code)
