"""Classes that nobody here knows become records; what would act if it were called is refused by its name.

Pickles of the kind that proofs of concept and scanners' lists publish, in every container, each with a file that
it would make if it ran; and honest files of the kinds that training scripts and model zoos write.
"""

from __future__ import annotations

import argparse
import collections
import copy
import enum
import functools
import io
import pickle
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import good, run
from stranger_pickles import EMPTY_MAP, get, legacy, mapped, nest, put, tensor, text, thing, zipped

from ckptswap import formats
from ckptswap.errors import FormatError

torch = pytest.importorskip("torch")

CALLS = {  # what is asked for, and what it would be called with
    "os.system": ("touch {victim}",),
    "posix.system": ("touch {victim}",),
    "nt.system": ("touch {victim}",),
    "os.popen": ("touch {victim}",),
    "os.execvp": ("touch", ["touch", "{victim}"]),
    "os.unlink": ("{victim}",),
    "subprocess.Popen": (["touch", "{victim}"],),
    "subprocess.check_output": (["touch", "{victim}"],),
    "_posixsubprocess.fork_exec": (),
    "pty.spawn": ("/bin/sh",),
    "commands.getoutput": ("touch {victim}",),
    "builtins.eval": ("open({victim!r}, 'w')",),
    "builtins.exec": ("open({victim!r}, 'w')",),
    "builtins.compile": ("1", "", "eval"),
    "builtins.open": ("{victim}", "w"),
    "builtins.__import__": ("os",),
    "builtins.setattr": (),
    "builtins.input": (),
    "builtins.breakpoint": (),
    "io.open": ("{victim}", "w"),
    "_io.open": ("{victim}", "w"),
    "_io.FileIO": ("{victim}", "w"),
    "io.FileIO": ("{victim}", "w"),
    "importlib.import_module": ("os",),
    "runpy.run_path": ("{victim}",),
    "runpy._run_code": (),
    "shutil.rmtree": ("{victim}",),
    "socket.create_connection": (("localhost", 1),),
    "ctypes.CDLL": ("libc.so.6",),
    "webbrowser.open": ("http://localhost",),
    "urllib.request.urlopen": ("http://localhost",),
    "requests.api.get": ("http://localhost",),
    "httplib2.Http.connect": (),
    "ftplib.FTP": (),
    "smtplib.SMTP": (),
    "pickle.loads": (b"N.",),
    "_pickle.loads": (b"N.",),
    "cPickle.loads": (b"N.",),
    "dill.loads": (b"N.",),
    "cloudpickle.loads": (b"N.",),
    "joblib.load": ("{victim}",),
    "marshal.loads": (b"N",),
    "types.FunctionType": (),
    "types.CodeType": (),
    "operator.attrgetter": ("system",),
    "operator.methodcaller": ("system",),
    "functools.reduce": (),
    "timeit.timeit": ("open({victim!r}, 'w')",),
    "cProfile.run": ("open({victim!r}, 'w')",),
    "profile.run": ("open({victim!r}, 'w')",),
    "profile.Profile.runctx": (),
    "pdb.run": ("1",),
    "bdb.Bdb.run": ("1",),
    "trace.Trace.runctx": (),
    "doctest.debug_script": (),
    "code.InteractiveInterpreter.runcode": (),
    "pydoc.pipepager": ("a", "touch {victim}"),
    "pip._internal.main": ("install",),
    "ensurepip._run_pip": (),
    "venv.create": ("{victim}",),
    "idlelib.pyshell.ModifiedInterpreter.runcommand": (),
    "lib2to3.pgen2.grammar.Grammar.loads": (),
    "distutils.file_util.write_file": ("{victim}", []),
    "logging.config.listen": (),
    "test.support.script_helper.assert_python_ok": (),
    "asyncio.unix_events._UnixSubprocessTransport._start": (),
    "multiprocessing.util.spawnv_passfds": (),
    "torch.hub.load": ("a/b", "c"),
    "torch.load": ("{victim}",),
    "torch.jit.load": ("{victim}",),
    "torch.package.PackageImporter": (),
    "torch.serialization.os.system": ("touch {victim}",),
    "torch.utils.cpp_extension.load_inline": (),
    "torch.utils._config_module.load_config": (),
    "torch.utils.collect_env.run": ("touch {victim}",),
    "torch.fx.graph_module.reduce_graph_module": (),
    "torch._dynamo.guards.GuardBuilder.get": (),
    "torch._inductor.codecache.compile_file": (),
    "torch.distributed.rpc.rpc_sync": (),
    "torch.ops.load_library": ("{victim}",),
    "numpy.load": ("{victim}",),
    "numpy.testing._private.utils.runstring": ("open({victim!r}, 'w')", {}),
    "numpy.f2py.crackfortran.myeval": ("1",),
    "numpy.distutils.exec_command._exec_command": (),
    "numpy.memmap": ("{victim}",),
    "numpy.fromfile": ("{victim}",),
    "pandas.io.pickle.read_pickle": ("{victim}",),
    "pandas.core.computation.eval.eval": ("1",),
    "yaml.unsafe_load": ("a",),
    "a.b.c.os.system": ("touch {victim}",),
    "mylib.net.__globals__": (),
}


def called(name: str, arguments: tuple[Any, ...], ending: bytes = b"R") -> bytes:
    """Opcodes that ask for a global and call it, and no more."""
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode() + pickle.dumps(arguments, 2)[2:-1] + ending


def filled(arguments: tuple[Any, ...], victim: Path) -> tuple[Any, ...]:
    return tuple(text.format(victim=str(victim)) if isinstance(text, str) else text for text in arguments)


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": zipped,
    "legacy": legacy,
    "plain": lambda value: b"\x80\x04" + value + b".",
    "beside a state dict": lambda value: zipped(b"}" + text("state") + value + b"s"),
    "broken behind it": lambda value: b"\x80\x04" + value + b"0\xff\xff",
}


def refusal(raw: bytes, path: Path) -> str:
    path.write_bytes(raw)
    with pytest.raises(FormatError) as caught:
        formats.open_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_would_act_is_refused_by_its_name(container: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for name, arguments in CALLS.items():
        for ending in (b"R", b"\x81"):
            raw = CONTAINERS[container](called(name, filled(arguments, victim), ending))
            said = refusal(raw, tmp_path / "a.pt")
            assert f"asks for {name}, which could run code" in said, (name, said)
    assert not victim.exists()


def test_a_name_that_is_put_together_is_refused(tmp_path: Path) -> None:
    """`getattr` leads from a class to what is not its own."""
    for owner, name in [("mylib.Net", "__init__"), ("torch.serialization", "os"), ("mylib.net", "subprocess")]:
        module, _, last = owner.rpartition(".")
        value = f"cbuiltins\ngetattr\n(c{module}\n{last}\n".encode() + pickle.dumps(name, 2)[2:-1] + b"tR)R"
        assert f"asks for {owner}.{name}, which" in refusal(zipped(value), tmp_path / "a.pt")


# Honest ones -----------------------------------------------------------------------------------------------


class Attention(enum.Enum):
    AUTO = 5


class History:
    """As mmengine's, Megatron's and detectron2's: a class that another machine does not have."""

    def __init__(self) -> None:
        self.values, self.size = np.array([0.5]), 3


class Config(dict):
    """As mmengine's `ConfigDict` and `addict.Dict`."""


class Net(torch.nn.Module):
    """A model with all that a state dict knows: shared and nested modules, buffers of both kinds, None."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1, bias=False), torch.nn.BatchNorm2d(4))
        self.again = self.body[0]
        self.scale = torch.nn.Parameter(torch.ones(4)[::2])
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("mask", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)
        self.act = functools.partial(torch.nn.functional.gelu, approximate="tanh")
        self.history = [History()]


STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
HONEST: dict[str, Any] = {
    "enum": {"model": STATE, "args": argparse.Namespace(backend=Attention.AUTO)},
    "class": {"state_dict": STATE, "message_hub": {"loss": History()}},
    "map of a class": {"state_dict": STATE, "meta": Config(a=Config(b=1))},
    "simple namespace": {"model": STATE, "args": types.SimpleNamespace(a=1)},
    "partial": {"model": STATE, "norm": functools.partial(copy.deepcopy, memo=None)},
    "deque": {"model": STATE, "losses": collections.deque([1.0], 9)},
    "a class itself": {"model": STATE, "kind": History},
    "a function": {"model": STATE, "f": copy.deepcopy},
    "an error": {"model": STATE, "ended": ValueError("a")},
}


@pytest.mark.parametrize("zip", [True, False])
def test_what_stands_beside_the_tensors_is_told_in_one_line(zip: bool, tmp_path: Path) -> None:
    for name, content in HONEST.items():
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zip)
        with formats.open_checkpoint(tmp_path / "a.pt") as checkpoint:
            assert {key: checkpoint.read(key).tolist() for key in checkpoint} == {
                key: value.tolist() for key, value in STATE.items()
            }, name
            told = 0 if name in ("a class itself", "a function") else 1
            assert sum("left unread" in note for note in checkpoint.notes) == told, (name, checkpoint.notes)


@pytest.mark.parametrize("zip", [True, False])
def test_a_whole_model_gives_what_its_state_dict_would(zip: bool, tmp_path: Path) -> None:
    net = Net()
    torch.save({"epoch": 3, "model": net}, tmp_path / "a.pt", _use_new_zipfile_serialization=zip)
    with formats.open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert [*checkpoint] == [*net.state_dict()]
        for name, value in net.state_dict().items():
            assert np.array_equal(checkpoint.read(name), value.numpy())
        assert any(f"{Net.__module__}.Net, of which nothing was built" in note for note in checkpoint.notes)
        assert {*checkpoint.ties.group("again.weight")} == {"again.weight", "body.0.weight"}


def test_a_graft_into_a_whole_model_leaves_a_whole_model(tmp_path: Path) -> None:
    net, donor = Net(), Net()
    torch.nn.init.constant_(donor.body[0].weight, 7.0)
    torch.save(net, tmp_path / "a.pt")
    torch.save(donor.state_dict(), tmp_path / "b.pt")
    good("transplant", "--from", tmp_path / "b.pt", "--to", tmp_path / "a.pt", "--kind", "conv.weight",
         "-o", tmp_path / "c.pt")  # fmt: skip
    made = torch.load(tmp_path / "c.pt", weights_only=False)
    assert isinstance(made, Net)
    assert made.again.weight.unique().tolist() == [7.0]


def test_modules_without_end_are_refused(tmp_path: Path) -> None:
    net = torch.nn.Sequential()
    net.inner = net
    torch.save(net, tmp_path / "a.pt")
    assert "too many modules" in run("show", tmp_path / "a.pt").err
    doubled = torch.nn.Sequential(torch.nn.Linear(1, 1))
    for _ in range(40):  # 2 to the power of 40 names
        doubled = torch.nn.Sequential(doubled, doubled)
    torch.save(doubled, tmp_path / "b.pt")
    assert "too many modules" in run("show", tmp_path / "b.pt").err


def of_module(*pairs: tuple[bytes, bytes], modules: bytes = EMPTY_MAP) -> bytes:
    parts = mapped((text("_parameters"), mapped(*pairs)), (text("_modules"), modules))
    return thing("net.Net", parts)


def test_keys_that_are_no_text_are_not_spelt_out(tmp_path: Path) -> None:
    """A nest of tuples has 2 to the power of 60 letters."""
    value = of_module((text("w"), tensor()), (nest(), tensor()), modules=mapped((nest(first=100), of_module())))
    (tmp_path / "a.pt").write_bytes(zipped(value))
    with formats.open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert [*checkpoint] == ["w"]


def test_names_that_grow_with_each_module_are_refused(tmp_path: Path) -> None:
    """Ten thousand tensors under fifty names of nine thousand letters would take five gigabytes of names."""
    view = tensor() + put(0) + b"0"
    value = of_module(*((text(str(at)), get(0)) for at in range(10_000)))
    for _ in range(50):
        value = of_module(modules=mapped((text("a" * 9000), value)))
    said = refusal(zipped(view + value), tmp_path / "a.pt")
    assert "too many modules" in said


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_a_plain_pickle(protocol: int, tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype="f2").reshape(2, 3)),
              "be": np.arange(3, dtype=">i4"), "n": np.array(5), "b": np.array([True]), "c": np.array([1j]),
              "none": np.zeros((0, 3), "f4")}  # fmt: skip
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol))
    with formats.open_checkpoint(tmp_path / "zoo.pkl") as checkpoint:
        assert {*checkpoint} == {*arrays}
        for name, value in arrays.items():
            assert checkpoint[name].shape == value.shape
            assert np.array_equal(checkpoint.read(name), value)


def test_a_plain_pickle_too_long_to_be_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptswap.formats.plain_pickle.MOST", 100)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.ones(50)}))
    with pytest.raises(FormatError, match=r"read at once, and takes .* bytes; 100 is the most"):
        formats.open_checkpoint(tmp_path / "a.pkl")


def test_tensors_of_a_plain_pickle(tmp_path: Path) -> None:
    """`pickle.dump` has torch save each storage into bytes; views of one storage stay views of one."""
    base = torch.arange(8.0)
    tied = {"a": base[:4], "b": base[4:].reshape(2, 2).T, "again": base[:4]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(tied))
    with formats.open_checkpoint(tmp_path / "a.pkl") as checkpoint:
        assert {name: checkpoint.read(name).tolist() for name in checkpoint} == {
            name: value.tolist() for name, value in tied.items()
        }


def test_a_tensor_of_an_xla_device(tmp_path: Path) -> None:
    class OnDevice:
        def __init__(self, *how: Any) -> None:
            self.how = how

        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_device_tensor_from_numpy, self.how

    content = {"w": OnDevice(np.arange(2, dtype="f4"), torch.float32, "xla:0", False),
               "h": OnDevice(np.array([1.5], "f4"), torch.bfloat16, "xla:0", False)}  # fmt: skip
    torch.save({"state_dict": content}, tmp_path / "tpu.pt")
    with formats.open_checkpoint(tmp_path / "tpu.pt") as checkpoint:
        assert checkpoint.read("w").tolist() == [0.0, 1.0]
        assert (checkpoint["h"].dtype, checkpoint.read("h").tolist()) == ("BF16", [1.5])


def test_numbers_of_numpy_beside_tensors_are_no_values_that_are_lost(tmp_path: Path) -> None:
    torch.save({**STATE, "best": np.float64(0.5), "kind": np.dtype("f4")}, tmp_path / "a.pt")
    with formats.open_checkpoint(tmp_path / "a.pt") as checkpoint:
        assert not checkpoint.unread


def test_damaged_arrays_are_not_read(tmp_path: Path) -> None:
    """A shape that the bytes do not fill, a dtype of objects."""
    raw = pickle.dumps({"w": np.arange(4, dtype="f4"), "o": np.array([None])}, 4)
    (tmp_path / "a.pkl").write_bytes(raw.replace(b"K\x04\x85", b"K\x05\x85"))
    assert "no tensors" in run("show", tmp_path / "a.pkl").err


def test_one_tensor_is_no_map(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "a.pt")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(np.ones(2)))
    for name in ("a.pt", "a.pkl"):
        assert "holds one tensor, not a map of tensors" in run("show", tmp_path / name).err
    out = io.BytesIO()
    pickle.dump([1], out)
    (tmp_path / "b.pkl").write_bytes(out.getvalue())
    assert "holds no map of tensors but a list" in run("show", tmp_path / "b.pkl").err
