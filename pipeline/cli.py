"""The command line: `medner COMMAND`. The commands and their flags are in `pipeline.arguments`.

Exit codes: 0 done, 1 the work failed, 2 the user's input or settings are wrong. With --json, standard output is one JSON object
and everything else goes to standard error. Heavy packages are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence

from data.files import require_writable
from data.schema import InputError
from data.table import printable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A file or folder that cannot be read or written: not the work's fault but that of the path the user gave.
OF_THE_PLACE = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
WRITTEN = ("out", "target", "export_space")  # options that name what a command writes

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# What the libraries would tell their makers.
UNTRACKED = {
    "DO_NOT_TRACK": "1",  # huggingface_hub, transformers, vLLM
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "WANDB_ERROR_REPORTING": "false",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    from pipeline.arguments import parse_arguments

    options = parse_arguments(arguments)
    quiet_libraries(options.debug)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
    try:
        for place in filter(None, (getattr(options, name, None) for name in WRITTEN)):
            require_writable(place)  # before any work is done
        with contextlib.redirect_stdout(sys.stderr):
            result, text, code = options.command(options)
        tell(json.dumps(result, ensure_ascii=False, indent=2) if options.json else printable(text))
        return code
    except InputError as error:
        return fail(options, 2, str(error))
    except KeyboardInterrupt as stop:
        return fail(options, 1, str(stop) or "interrupted; the same command goes on where it stopped")
    except OSError as error:
        return fail(options, 2 if error.errno in OF_THE_PLACE else 1, describe_os_error(error))
    except Exception as error:  # the one place where a failure of the program becomes an exit code
        return fail(options, 1, f"{type(error).__name__}: {error}")


def tell(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, `head` say, has had enough; Python would complain once more on its way out
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interrupt(*_: object) -> None:
    """What a machine that is taken away sends ends a command as Ctrl-C does."""
    raise KeyboardInterrupt


def describe_os_error(error: OSError) -> str:
    """An OSError in one line: the path first, then what is wrong with it and what to do."""
    name = error.filename or error.filename2
    if error.errno not in OF_THE_PLACE or name is None and error.errno not in FULL:
        return f"{type(error).__name__}: {error}"
    cure = "free some space" if error.errno in FULL else "choose a folder that can be written"
    return f"{name or 'the disk'}: {error.strerror}; {cure}, and give the same command again"


def quiet_libraries(debug: bool) -> None:
    """Their bars and hints would bury ours, and nothing is to be told to their makers; --debug shows the former.

    They read these variables when they are imported.
    """
    for variable, value in (UNTRACKED | {"TOKENIZERS_PARALLELISM": "false"}).items():
        os.environ.setdefault(variable, value)
    if not debug:
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        warnings.simplefilter("ignore")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of a kernel for 4-bit on a CPU, which nothing here uses


def fail(options: argparse.Namespace, code: int, message: str) -> int:
    """The exit code, after the message on standard error; with --debug the exception is raised again."""
    if options.debug:
        raise
    print(printable(f"{options.prog}: {message}"), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
