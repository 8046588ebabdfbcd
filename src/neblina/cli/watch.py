"""`neblina watch`: a training run in the browser."""

from pathlib import Path

from neblina.cli.numbers import Whole
from neblina.cli.progress import console


def watch(run: Path, /, *, host: str = "127.0.0.1", port: Whole = 0, once: Path | None = None) -> None:
    """Show a training run as a page that refreshes itself: samples, curves, figures, and how long it still takes.

    Parameters
    ----------
    run
        A run's folder, such as runs/emoji.
    host
        Who may look: 127.0.0.1 is this machine alone, 0.0.0.0 everyone who reaches it.
    port
        Where the page is served; any that is free when left out.
    once
        Write the page to this file and end.
    """
    from neblina.tasks.watch import server, write_page

    if once is not None:
        write_page(run, once)
        console.print(f"the page of {run}    {once}")
        return
    with server(run, host=host, port=port) as serving:
        console.print(f"watching {run} at http://{host}:{serving.server_address[1]}/    (stop with Ctrl-C)")
        serving.serve_forever()
