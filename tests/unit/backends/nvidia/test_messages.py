"""What a vendor's library says: kept, counted, and made into errors."""

from pathlib import Path

from tailorbird.backends.nvidia.messages import Heard
from tests.stand_ins.tensorrt_module import Logger, Severity


class Module:
    ILogger = Logger


def test_all_but_chatter_is_heard_and_on_disk_at_once(tmp_path: Path) -> None:
    file = tmp_path / "messages.txt"
    heard = Heard(file)
    logger = heard.logger(Module)
    logger.log(Severity.VERBOSE, "Registering tensor")
    logger.log(Severity.INFO, "Detected 1 inputs\nand 1 output")
    assert file.read_text() == "info: Detected 1 inputs and 1 output\n"
    logger.log(Severity.WARNING, "  slow  ")
    for banner in ("----------", "Input filename:   /home/someone/model.onnx", "Doc string:"):
        logger.log(Severity.INFO, banner)
    assert file.read_text().splitlines()[1:] == ["warning: slow"]


def test_many_messages_leave_room_for_the_bad_ones() -> None:
    heard = Heard()
    for number in range(1000):
        heard.add("info", f"line {number}")
    heard.add("error", "x" * 5000)
    assert len(heard.messages) == 401
    assert len(heard.messages[-1].text) == 2000


def test_a_failure_has_the_last_errors_in_the_librarys_words() -> None:
    heard = Heard()
    for text in ("Thread context has not been set! Using global log stream.", "a", "b", "b", "c", "d", "e"):
        heard.add("internal_error", text)
    error = heard.failure("the builder gave no engine", otherwise="no reason given")
    assert error.message == "the builder gave no engine: got b; c; d; e"
    heard.add("error", "f")
    assert heard.failure("the next run failed", otherwise="").message == "the next run failed: got f"


def test_a_session_that_complains_for_ever_does_not_grow() -> None:
    heard = Heard()
    for number in range(2000):
        heard.add("warning", str(number))
    assert len(heard.messages) == 800
    assert heard.messages[-1].text == "1999"


def test_a_failure_without_words_says_so() -> None:
    error = Heard().failure("the runtime refused", otherwise="no reason given", hint="build again")
    assert error.message == "the runtime refused: got no reason given\nHint: build again"


def test_memory_that_ran_out_is_told_with_what_to_do() -> None:
    heard = Heard()
    heard.add("error", "Cuda Runtime (out of memory)")
    assert heard.failure("no engine", otherwise="").message == (
        "no engine: got Cuda Runtime (out of memory)\n"
        "Hint: serve smaller shapes, allow a smaller workspace, or free the device's memory"
    )


def test_a_disk_that_is_full_ends_nothing(tmp_path: Path) -> None:
    heard = Heard(tmp_path / "absent" / "messages.txt")
    heard.add("info", "still heard")
    assert [str(one) for one in heard.messages] == ["info: still heard"]
