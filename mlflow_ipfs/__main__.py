"""Entry point of the ``mlflow-ipfs`` command and of ``python -m mlflow_ipfs``."""

from __future__ import annotations

import signal


def main() -> None:
    """Load and run the command.

    Until it is loaded, Ctrl-C ends the process at once. A ``KeyboardInterrupt`` would print a traceback of the imports.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else the process was started to ignore it, as by nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mlflow_ipfs.cli import main as run  # noqa: PLC0415 - see above

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
