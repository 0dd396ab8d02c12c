"""Processes that write to a store and are killed; ``python -m tests.store.child MODE STORE ...`` or started by a fork server."""

import os
import sys
import time

import numpy as np

from ooc_diffusion.errors import OocDiffusionError
from ooc_diffusion.store import Store, clean

from .helpers import limit_file_size, long_stage, pair_of, publish_pair, use_small_chunks


def write_in_place(path, data, *, durable=True):
    """What `replace_file` must not be: the new content over the old, piece by piece."""
    with path.open("wb", buffering=0) as file:
        for first in range(0, len(data), 64):
            file.write(data[first : first + 64])
            time.sleep(0.0002)


def publish_apart(store, generation):
    """What `publish` must not be: the two arrays in two steps."""
    for name, values in zip("ab", pair_of(generation), strict=True):
        stage = "pair" if name == "a" else "other"
        with store.job(stage, parameters={"generation": generation}, overwrite=True) as job:
            if not job.published:
                job.put(name, values)
                job.publish({"generation": generation})


def publish_forever(path, pipe, fault=""):
    """Publish one generation after the other, and say so when each is done."""
    use_small_chunks()
    if fault == "in place":
        from ooc_diffusion.store import journal
        from ooc_diffusion.store import store as store_module

        store_module.replace_file = journal.replace_file = write_in_place
    store = Store(path, create=True)
    stages = store.manifest.stages
    generation = stages["pair"]["record"]["generation"] if "pair" in stages else 0
    pipe.send(("begun", generation))
    while True:
        generation += 1
        if fault == "apart":
            publish_apart(store, generation)
        else:
            publish_pair(store, generation)
        pipe.send(("acknowledged", generation))
        if generation % 4 == 0:
            clean(store)


def run_long_stage(path, pipe):
    use_small_chunks()
    store = Store(path, create=True)
    pipe.send(("begun", 0))
    resumed = long_stage(store)
    pipe.send(("finished", resumed))


def publish_when_told(path, pipe):
    """Publish generation 2 as soon as a tracer is there."""
    use_small_chunks()
    pipe.send("ready")
    pipe.recv()
    try:
        publish_pair(Store(path, create=True), 2, blocks=2)
        pipe.send((0, ""))
    except OocDiffusionError as error:
        pipe.send((error.exit_code, str(error)))
    except Exception as error:
        pipe.send((1, repr(error)))


def take_lock(path, pipe, barrier):
    """Try to write at the same moment as others; the one who may holds on until told."""
    store = Store(path)
    barrier.wait()
    try:
        with store.lock:
            pipe.send((0, os.getpid()))
            pipe.recv()
    except OocDiffusionError as error:
        pipe.send((error.exit_code, str(error)))


def main(mode, path, *arguments):
    use_small_chunks()
    store = Store(path, create=True)
    if mode == "pair":
        publish_pair(store, int(arguments[0]), blocks=2)
    elif mode == "hold":
        with store.lock:
            sys.stdout.write("held\n")
            sys.stdout.flush()
            sys.stdin.read()
    elif mode in ("grow", "reserve"):
        rows = int(arguments[0])
        if len(arguments) > 1:
            limit_file_size(int(arguments[1]))
        with store.job("big", parameters={"rows": rows}) as job:
            writer = job.array("big", "<i8", (rows if mode == "reserve" else None,))
            for first in range(writer.rows, rows, 1024):
                writer.append(np.arange(first, min(rows, first + 1024)))
                job.checkpoint(now=True)
            sys.stdout.write(f"resumed {job.resumed}\n")
            job.publish({})
    elif mode == "clean":
        clean(store, unfinished=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OocDiffusionError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
