from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from ckptswap.errors import DataError, MetricError, ModelError
from ckptswap.task.callables import call, code_hash, faults_of, load_callable


def write(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_is_loaded_once_for_each_content(tmp_path: Path) -> None:
    path = write(tmp_path, "calls = []\ndef f(): return calls\ndef g(): return calls\n")
    assert load_callable(f"{path}:f", ModelError)() is load_callable(f"{path}:g", DataError)()
    before = code_hash(f"{path}:f")
    write(tmp_path, "def f(): return 'new'\n")
    assert load_callable(f"{path}:f", ModelError)() == "new"
    assert code_hash(f"{path}:f") != before
    assert code_hash("smp:Unet") is None


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 41\n", "neighbour_of_own.py")
    path = write(tmp_path, "from neighbour_of_own import VALUE\ndef f(): return VALUE + 1\n")
    assert load_callable(f"{path}:f", ModelError)() == 42


def test_a_package_is_found_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "somepackage_of_mine"
    package.mkdir()
    write(package, "def f(): return 7\n", "nets.py")
    monkeypatch.chdir(tmp_path)
    assert load_callable("somepackage_of_mine.nets:f", ModelError)() == 7


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path, "def build(): return 1\nNUMBER = 3\n")
    for spec, message in [
        (f"{tmp_path}/none.py:f", "there is no file"),
        (f"{path}:biuld", "did you mean 'build'"),
        (f"{path}:NUMBER", "is a int"),
        ("no_such_module_anywhere:f", "there is no module 'no_such_module_anywhere'"),
        ("json.no_such_part:f", "there is no module 'json.no_such_part'"),
    ]:
        with pytest.raises(ModelError, match=message):
            load_callable(spec, ModelError)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("x = (\n", 1, "SyntaxError"),
        ("import no_such_thing_at_all\n", 1, "ModuleNotFoundError: No module named 'no_such_thing_at_all'"),
        ("import sys\nsys.exit(3)\n", 2, r"sys\.exit\(3\)"),
    ],
)
def test_a_file_that_fails_is_blamed_by_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(MetricError, match=rf"own\.py:{line}.*{message}|{message} at .*own\.py:{line}"):
        load_callable(f"{path}:f", MetricError)


def test_a_function_that_fails_is_blamed_where_the_users_code_was(tmp_path: Path) -> None:
    path = write(tmp_path, "import torch\ndef f(n):\n    return torch.zeros(n).view(7, 7)\n")
    with pytest.raises(ModelError, match=r"own\.py:3: RuntimeError: shape '\[7, 7\]'") as caught:
        call("own", load_callable(f"{path}:f", ModelError), {"n": 3}, ModelError)
    assert "\n" not in str(caught.value)


def test_arguments_that_a_function_does_not_take() -> None:
    def f(width: int, depth: int = 1) -> int:
        return width * depth

    assert call("f", f, {"width": 2, "depth": 3}, ModelError) == 6
    with pytest.raises(ModelError, match=r"f: missing a required argument: 'width': it takes \(width"):
        call("f", f, {}, ModelError)
    with pytest.raises(ModelError, match="unexpected keyword argument 'widht'"):
        call("f", f, {"widht": 1, "width": 1}, ModelError)


def test_prints_of_user_code_stay_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with faults_of("own", ModelError):
        print("chatter")
    assert capsys.readouterr() == ("", "chatter\n")


def test_threads_that_overlap_put_stdout_back(capsys: pytest.CaptureFixture[str]) -> None:
    entered, leave, left = Event(), Event(), Event()
    before = sys.stdout

    def first() -> None:
        with faults_of("first", ModelError), faults_of("within", ModelError):
            print("chatter")
            entered.set()
            leave.wait()
        left.set()

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(first)
        entered.wait()
        print("a result")
        with faults_of("second", ModelError):
            leave.set()
            left.wait()
            print("more")
        task.result()
    assert sys.stdout is before
    assert capsys.readouterr() == ("a result\n", "chatter\nmore\n")


def test_a_thread_that_user_code_begins_is_kept_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with faults_of("own", ModelError), ThreadPoolExecutor(1) as pool:
        pool.submit(print, "chatter").result()
    assert capsys.readouterr() == ("", "chatter\n")


def test_being_stopped_is_nobodys_fault() -> None:
    with pytest.raises(SystemExit), faults_of("own", ModelError):
        raise SystemExit(143)
    with pytest.raises(KeyboardInterrupt), faults_of("own", ModelError):
        raise KeyboardInterrupt
