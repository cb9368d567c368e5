import importlib.util

import pytest

from tailorbird.cli.main import run
from tailorbird.demo import requirements
from tailorbird.demo.requirements import check_requirements
from tailorbird.domain.errors import UsageError
from tests.project import tree


def test_all_is_here() -> None:
    check_requirements()


@pytest.fixture
def without_pictures_and_client(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"PIL", "tritonclient", "geventhttpclient"}
    find = importlib.util.find_spec
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name in absent else find(name))


@pytest.mark.usefixtures("without_pictures_and_client")
def test_missing_packages_are_named_with_what_installs_them() -> None:
    with pytest.raises(UsageError) as caught:
        check_requirements()
    assert caught.value.message == (
        "the demo lacks packages: got no pillow, tritonclient[http]\nHint: pip install 'tailorbird[cpu,demo]'"
    )


@pytest.mark.usefixtures("without_pictures_and_client")
def test_the_command_says_so_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo"]) == 2
    assert "Hint: pip install 'tailorbird[cpu,demo]'" in capsys.readouterr().err


def test_other_commands_do_not_load_the_demo() -> None:
    code = (
        "import sys; from tailorbird.cli.app import app_for; app_for([])\n"
        "print([name for name in sys.modules if name.startswith(('tailorbird.demo', 'PIL', 'tritonclient'))])"
    )
    assert tree.run_python(code).stdout == "[]\n"
