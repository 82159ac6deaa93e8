"""What stops a command is told by its exit code."""

import os
import signal

import pytest
import typer

from tastemaker.cli.stopping import stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("own", [KeyboardInterrupt, ImportError])  # Ray while it waits; C modules while they are loaded
def test_the_code_is_that_of_the_signal_though_a_library_raises_an_exception_of_its_own(number, own, capsys):
    def library():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as interrupt:
            raise own from (None if own is KeyboardInterrupt else interrupt)

    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as stopped, stoppable("nothing was written"):
        library()
    assert stopped.value.exit_code == 128 + number
    assert capsys.readouterr().err == "tastemaker: stopped; nothing was written\n"
    assert signal.getsignal(signal.SIGTERM) == before
    signal.signal(signal.SIGINT, interrupt)
