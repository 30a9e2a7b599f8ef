import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mkiso.config import Receiver
from mkiso.errors import Busy
from mkiso.retrieve.receiver import receiver_slot, slot_is_taken
from mkiso.workspace import held

ONE = Receiver(ae_title="CDRECORD", port=10104)
OTHER = Receiver(ae_title="CDRECORD2", port=10105)
HOLD = """
import sys
from pathlib import Path
from mkiso.config import Receiver
from mkiso.workspace import held
from mkiso.retrieve.receiver import receiver_slot
with receiver_slot(Path(sys.argv[1]), [Receiver(ae_title="CDRECORD", port=10104)], 5, lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def nothing() -> None:
    pass


@contextmanager
def held_by_a_process(work_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = (sys.executable, "-c", HOLD, str(work_dir))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


@contextmanager
def held_by_a_thread(work_dir: Path) -> Iterator[None]:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with receiver_slot(work_dir, [ONE], 5, nothing):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)
        yield
    finally:
        done.set()
        holder.join()


def is_free(work_dir: Path) -> bool:
    return not slot_is_taken(work_dir, ONE)


@pytest.mark.parametrize("holding", [held_by_a_process, held_by_a_thread])
class TestASlotThatIsHeldElsewhere:
    def test_is_not_given_again(self, holding: Callable, tmp_path: Path) -> None:
        with holding(tmp_path):
            assert slot_is_taken(tmp_path, ONE)
            with pytest.raises(Busy), receiver_slot(tmp_path, [ONE], 0.1, nothing):
                pytest.fail("two jobs on one receiver")

    def test_leaves_the_next_receiver(self, holding: Callable, tmp_path: Path) -> None:
        with holding(tmp_path), receiver_slot(tmp_path, [ONE, OTHER], 0, nothing) as free:
            assert free == OTHER

    def test_is_free_when_its_holder_is_done(self, holding: Callable, tmp_path: Path) -> None:
        with holding(tmp_path):
            pass
        with receiver_slot(tmp_path, [ONE, OTHER], 10, nothing) as free:
            assert free == ONE


def test_a_slot_is_free_when_its_holder_was_killed(tmp_path: Path) -> None:
    with held_by_a_process(tmp_path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        with receiver_slot(tmp_path, [ONE], 10, nothing) as free:
            assert free == ONE


def test_a_slot_that_comes_free_goes_to_the_one_who_waits(tmp_path: Path) -> None:
    with held_by_a_process(tmp_path) as holder, receiver_slot(tmp_path, [ONE], 10, holder.kill) as free:
        assert free == ONE


def test_who_waits_is_asked_all_the_while(tmp_path: Path) -> None:
    def checkpoint() -> None:
        raise KeyError("stop")

    with held_by_a_thread(tmp_path), pytest.raises(KeyError), receiver_slot(tmp_path, [ONE], 60, checkpoint):
        pytest.fail("it was taken")


def test_a_slot_is_free_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), receiver_slot(tmp_path, [ONE], 0, nothing):
        raise KeyError
    assert is_free(tmp_path)


def test_asking_whether_a_slot_is_taken_does_not_take_it(tmp_path: Path) -> None:
    assert is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_lock_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with receiver_slot(tmp_path, [ONE], 0, nothing):
        assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]


def test_a_slot_does_not_pass_to_a_program_that_its_holder_starts(
    tmp_path: Path, eventually: Callable[[Callable[[], object]], None]
) -> None:
    with receiver_slot(tmp_path, [ONE], 0, nothing):
        sleeper = subprocess.Popen(("/bin/sleep", "60"), close_fds=False)
    try:
        eventually(lambda: is_free(tmp_path))  # the kernel closes the file a moment after the start
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_lock_file_that_was_removed_is_not_held_twice(tmp_path: Path) -> None:
    file = tmp_path / "receiver.lock"
    with held(file):
        file.unlink()
        with held(file):
            assert file.exists()
            with pytest.raises(BlockingIOError), held(file):
                pass
