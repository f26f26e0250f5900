"""What of a pickle's globals would do something if it were called.

Nothing is called here, whatever it is named; but a checkpoint has no use for a shell, a file or code, and who
gets one that asks for them should know. The list follows what scanners of pickles warn of; a class or function
that it does not know is read as a record.
"""

_ROOTS = frozenset(  # modules of which nothing belongs into a checkpoint, nor of what is inside them
    """
    _aix_support _osx_support _posixsubprocess _pyrepl _thread _winapi aiohttp asyncio asyncore atexit
    bdb cProfile cffi cloudpickle commands concurrent ctypes dill distutils doctest ensurepip fileinput ftplib
    gc glob httpx idlelib imaplib imp importlib inspect joblib lib2to3 linecache marshal mmap
    multiprocessing msvcrt nntplib nt numba os pdb pexpect pickle _pickle cPickle pip pkgutil poplib
    posix posixpath ntpath pty pydoc requests resource runpy shelve shutil signal smtplib socket
    socketserver ssl subprocess sys telnetlib tempfile threading timeit types urllib urllib2 urllib3
    venv webbrowser winreg xmlrpc zipimport
    """.split()  # noqa: SIM905
)
_INNER = frozenset("os posix nt sys subprocess builtins importlib ctypes shutil socket pickle runpy pty".split())  # noqa: SIM905
_MODULES = """
    torch.hub torch.package torch.jit torch.ops torch.multiprocessing torch.distributed.rpc
    torch.utils.cpp_extension torch.utils.model_zoo torch.utils.bottleneck
    torch.utils.data.datapipes.utils.decoder torch.fx.graph_module torch._inductor torch._dynamo
    torch.testing torch.cuda._compile_kernel numpy.f2py numpy.distutils numpy.testing numpy.ctypeslib
    numpy.lib.npyio pandas.io pandas.core.computation logging.config test.support
    torch.utils._config_module uuid._get_command_stdout
    """.split()  # noqa: SIM905
_FUNCTIONS = frozenset(
    """
    __import__ _exec _execvpe _load_from_bytes apply attrgetter breakpoint call check_call check_output chmod chown
    compile connect create_connection delattr eval exec execfile execl execv execve execvp exit fork
    forkpty fromfile genfromtxt getattr getoutput getstatusoutput globals import_module input interact
    kill link load load_library load_module loads loadtxt locals memmap methodcaller mkdir open
    open_code popen popen2 popen3 posix_spawn putenv quit read_pickle reduce reduce_graph_module remove
    rename replace rmdir rmtree run run_code run_module run_path runcall runcode runctx runeval
    runsource save savetxt setattr spawn spawnl spawnv startfile symlink system to_pickle truncate
    unlink unsafe_load urlopen urlretrieve vars write_bytes write_text
    """.split()  # noqa: SIM905
)
_CLASSES = frozenset(
    """
    _io.FileIO code.InteractiveConsole code.InteractiveInterpreter io.FileIO
    logging.FileHandler profile.Profile trace.Trace yaml.UnsafeLoader
    """.split()  # noqa: SIM905
)
_BUILTINS = frozenset(
    """
    Ellipsis NotImplemented NoneType bool bytearray bytes classmethod complex dict ellipsis float
    frozenset int list object property range set slice staticmethod str super tuple type
    """.split()  # noqa: SIM905
)
_PLAIN = ("types.SimpleNamespace", "types.NoneType")
_FAULTS = ("Error", "Exception", "Warning", "Exit", "Interrupt", "StopIteration")


def would_act(name: str) -> bool:
    """Whether a global, as `module.name`, would run code, open a file or ask the network if it were called.

    >>> would_act("os.system"), would_act("torch.serialization.os.system"), would_act("builtins.eval")
    (True, True, True)
    >>> would_act("omegaconf.listconfig.ListConfig"), would_act("__main__.Net"), would_act("builtins.set")
    (False, False, False)
    """
    root, *inner = name.split(".")
    if root == "builtins":
        return len(inner) != 1 or not (inner[0] in _BUILTINS or inner[0].endswith(_FAULTS))
    return (
        (root in _ROOTS and name not in _PLAIN)
        or name in _CLASSES
        or any(part in _INNER or part.startswith("__") for part in inner)
        or (bool(inner) and inner[-1] in _FUNCTIONS)
        or any(name == module or name.startswith(f"{module}.") for module in _MODULES)
    )
