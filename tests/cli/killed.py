"""``python -m tests.cli.killed STAGE:MOMENT ...``: the command line, killed with -9 when it comes to a moment of a stage.

Moments: ``begun`` (the journal has its first line), ``half`` (a checkpoint is journaled), ``unpublished`` (all data is there, the
manifest is not), ``published`` (the manifest is there, the journal not yet gone). ``page:begun`` is before the page is written.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ooc_diffusion.cli.main import main
from ooc_diffusion.stages import label
from ooc_diffusion.store import Job, Store


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(stage: str, moment: str) -> None:
    """Lay the trap."""
    begin, checkpoint, publish, commit = Job.begin, Job.checkpoint, Job.publish, Store.commit

    def wanted(job: Job, now: str) -> bool:
        return (job.stage.partition(".")[0], now) == (stage, moment)

    def killing_begin(job: Job, *arguments: Any) -> None:
        begin(job, *arguments)
        if wanted(job, "begun"):
            die()

    def killing_checkpoint(job: Job, *, now: bool = False, **state: Any) -> None:
        checkpoint(job, now=now or wanted(job, "half"), **state)
        if wanted(job, "half"):
            die()

    def killing_publish(job: Job, *arguments: Any) -> None:
        def killing_commit(store: Store, manifest: Any) -> None:
            if wanted(job, "unpublished"):
                die()
            commit(store, manifest)
            if wanted(job, "published"):
                die()

        Store.commit = killing_commit  # type: ignore[method-assign]
        publish(job, *arguments)

    Job.begin, Job.checkpoint, Job.publish = killing_begin, killing_checkpoint, killing_publish  # type: ignore[method-assign]
    if (stage, moment) == ("page", "begun"):
        label.write_page = lambda page, path: die()


if __name__ == "__main__":
    arm(*sys.argv.pop(1).split(":"))
    main()
