import contextlib
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ooc_diffusion.errors import BadInput
from ooc_diffusion.store import Store, clean, status, verify

from .helpers import open_files

STAGES = st.sampled_from("pq")
VERSIONS = st.integers(0, 2)


class StoreMachine(RuleBasedStateMachine):
    """A store beside a model of dictionaries: what is published, what is noted, what is only written."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        weakref.finalize(self, shutil.rmtree, self.folder)  # hypothesis makes machines that it never runs
        self.files_before = open_files()
        self.store = Store(self.folder / "store", create=True)
        self.published = {}  # stage -> (version, rows)
        self.noted = {}  # stage -> (version, rows) of interrupted work
        self.job, self.context = None, None
        self.rows, self.generation = [], 0

    def teardown(self):
        if self.job is not None:
            self.context.__exit__(None, None, None)
        assert open_files() == self.files_before

    @precondition(lambda self: self.job is None)
    @rule(stage=STAGES, version=VERSIONS, overwrite=st.booleans())
    def begin(self, stage, version, overwrite):
        context = self.store.job(stage, parameters={"version": version}, overwrite=overwrite)
        noted, published = self.noted.get(stage), self.published.get(stage)
        differs = any(state is not None and state[0] != version for state in (noted, published))
        if differs and not overwrite:
            with pytest.raises(BadInput, match=r"version = \d \(now \d\)"):
                context.__enter__()
            return
        job = context.__enter__()
        if noted is None and published is not None and not differs:
            assert job.published
            context.__exit__(None, None, None)
            return
        if noted is not None and noted[0] != version:
            noted = None
        self.job, self.context, self.stage, self.version = job, context, stage, version
        self.rows = list(noted[1]) if noted else []
        self.noted[stage] = (version, list(self.rows))
        assert not job.published
        self.known, self.counted = job.array(f"{stage}/known", "<i8", (300, 2)), job.array(f"{stage}/open", "<u2", (None,))
        self.scratch = job.array("scratch", "<i8", (None,), scratch=True)
        assert self.known.rows == self.counted.rows == self.scratch.rows == len(self.rows)

    @precondition(lambda self: self.job is not None)
    @rule(n=st.integers(0, 90), value=st.integers(0, 2**15))
    def append(self, n, value):
        n = min(n, 300 - len(self.rows))
        values = np.arange(value, value + n)
        self.known.append(np.stack([values, -values], axis=1))
        self.counted.append(values.astype(np.uint16))
        self.scratch.append(values)
        self.rows += values.tolist()
        np.testing.assert_array_equal(self.counted.view(), self.rows)

    @precondition(lambda self: self.job is not None)
    @rule()
    def checkpoint(self):
        self.job.checkpoint(now=True, n=len(self.rows))
        self.noted[self.stage] = (self.version, list(self.rows))

    @precondition(lambda self: self.job is not None)
    @rule(torn=st.binary(max_size=30), lost=st.integers(0, 2**32))
    def crash(self, torn, lost):
        """End without a word, with what was not synced in any state and half a line behind the journal."""
        (journal,) = self.store.path.glob(f"jobs/{self.stage}.journal")
        n = len(self.noted[self.stage][1])
        written = {writer.path: (128 if n else 0) + n * writer.row_bytes for writer in (self.known, self.counted)}
        with contextlib.suppress(RuntimeError):
            self.context.__exit__(RuntimeError, RuntimeError(), None)
        for path, kept in written.items():
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(kept)
                file.write(np.random.default_rng(lost).bytes(max(0, size - kept)))
        with journal.open("ab") as file:
            file.write(torn.replace(b"\n", b""))
        self.job = self.context = None
        self.reopen()

    @precondition(lambda self: self.job is not None)
    @rule()
    def publish(self):
        missing = 300 - len(self.rows)
        self.append(90, 7)
        while len(self.rows) < 300:
            self.append(90, 70)
        self.job.publish({"missing": missing})
        self.context.__exit__(None, None, None)
        self.published[self.stage] = (self.version, list(self.rows))
        del self.noted[self.stage]
        self.generation += 1
        self.job = self.context = None

    @rule(unfinished=st.booleans())
    def clean(self, unfinished):
        if self.job is None:
            clean(self.store, unfinished=unfinished)
            if unfinished:
                self.noted = {}
            kept = {entry.file for entry in self.store.manifest.arrays.values()}
            found = {f"data/{path.name}" for path in (self.store.path / "data").iterdir()}
            assert len(found - kept) == 3 * len(self.noted)
        else:
            clean(self.store)  # the holder of the lock may, and its own work is not touched

    @precondition(lambda self: self.job is None)
    @rule()
    def reopen(self):
        self.store = Store(self.store.path)

    @rule()
    def verify(self):
        assert verify(self.store, data=True)[0] == []

    @invariant()
    def readers_see_what_was_published(self):
        store = Store(self.store.path)
        assert store.manifest.generation == self.generation
        assert sorted(store.manifest.stages) == sorted(self.published)
        assert sorted(store.manifest.arrays) == sorted(f"{stage}/{a}" for stage in self.published for a in ("known", "open"))
        for stage, (version, rows) in self.published.items():
            assert store.parameters(stage) == {"version": version}
            known, opened = store.arrays(f"{stage}/known", f"{stage}/open")
            np.testing.assert_array_equal(opened, rows)
            np.testing.assert_array_equal(known, np.stack([rows, np.negative(rows)], axis=1))
        noted = {job["stage"]: job["rows"].get(f"{job['stage']}/known", 0) for job in status(store)["unfinished"]}
        assert noted == {stage: len(rows) for stage, (_, rows) in self.noted.items()}


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
