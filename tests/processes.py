"""Two processes under torchrun, as a user starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

# registered first, so run last: a group that is still there then aborts its process now and then
_PARTED = """
import atexit, os
from torch import distributed
atexit.register(lambda: os._exit(77) if distributed.is_initialized() else None)
"""


def run_in_two_processes(statements: str, folder: Path, *paths: Path) -> None:
    """Run statements in both, with `folder` as sys.argv[1] and the tests' own modules within reach.

    Args:
        paths: folders of further modules.
    """
    script = folder / "run.py"
    script.write_text(
        "import sys; sys.path[:0] = sys.argv[2:]\nimport torch; torch.set_num_threads(1)\n"
        f"{_PARTED}"
        f"from pathlib import Path\n{statements}"
    )
    places = [str(place) for place in (*paths, TESTS, TESTS / "conformance")]
    for attempt in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
        done = subprocess.run(
            [*command, str(script), str(folder), *places],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        # between looking for a free port and taking it, another program may have
        if attempt or "EADDRINUSE" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
