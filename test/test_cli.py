from __future__ import annotations

import subprocess
import sys

import pytest

from sdim_ros.core.types import BadInput
from sdim_ros.tools import cli, evaluate


@pytest.mark.parametrize("verb", ["complete", "demo", "evaluate", "convert", "train", "bench"])
def test_help_of_each_verb_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    assert f"example:\n  sdim {verb} " in capsys.readouterr().out


def test_help_loads_no_heavy_library():
    check = ("import sys\nfrom sdim_ros.tools import cli\n"
             "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
             "heavy = {'torch', 'transformers', 'matplotlib', 'rclpy', 'cv2'}\n"
             "print(*(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout and done.stdout.splitlines()[-1] == ""


def test_an_error_of_the_user_is_one_line_without_a_traceback(monkeypatch, capsys):
    def fail(_):
        raise BadInput("dataset", "nothing here")

    monkeypatch.setattr(evaluate, "run", fail)
    assert cli.main(["evaluate", "--out", "x"]) == 2
    assert capsys.readouterr().err == "sdim evaluate: nothing here\n"


def test_an_unknown_verb_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["conjure"])
    assert end.value.code == 2 and "conjure" in capsys.readouterr().err
