"""A Ray cluster makes the index that threads make, whoever dies meanwhile.

Authors
 * The esr_lobes contributors
"""

import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from esr_lobes import EncoderRetriever
from esr_lobes.errors import MendableError
from esr_lobes.index.local import LocalStore
from esr_lobes.indexing import plan
from esr_lobes.indexing.build import build_index
from esr_lobes.indexing.cutting import Cutting
from esr_lobes.indexing.digests import digest_of
from esr_lobes.indexing.engines import WorkerSpec
from esr_lobes.indexing.ray_engine import RayEngineError, ray_engine
from esr_lobes.indexing.unfinished import Unfinished
from esr_lobes.indexing.worker import Unit

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="pip install 'esr_lobes[scale]'"
)
WINDOWS = {"kind": "windows", "max_seconds": 1.0, "hop_seconds": 0.5}


def is_connected():
    import ray

    return ray.is_initialized()


def is_running():
    """Whether there is a cluster on this machine."""
    return any("gcs_server" in p.name() for p in psutil.process_iter())


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two machines, one core each."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    store = 100 << 20
    head = {
        "num_cpus": 1,
        "object_store_memory": store,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=store)
        yield cluster.address
    finally:
        cluster.shutdown()
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


@pytest.fixture
def small_units(monkeypatch):
    """One file a unit, so that there are many."""
    monkeypatch.setattr(plan, "MAX_FILES", 1)


def assert_same_files(folder, other):
    """All files of two indexes are the same, byte by byte."""
    names = sorted(path.name for path in Path(folder).iterdir())
    assert sorted(path.name for path in Path(other).iterdir()) == names
    assert len(names) >= 4
    for name in names:
        here, there = Path(folder) / name, Path(other) / name
        assert here.read_bytes() == there.read_bytes(), name


def actors():
    """Returns the processes of the actors that work for us."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if any("ray::MapWorker" in part for part in _words(process))
    ]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def killed(monkeypatch):
    """The actor that is killed when the first shard has been written."""
    killed = []
    add = Unfinished.add

    def add_and_kill(self, unit, shard):
        add(self, unit, shard)
        if not killed and actors():
            killed.append(actors()[0])
            killed[0].send_signal(signal.SIGKILL)

    monkeypatch.setattr(Unfinished, "add", add_and_kill)
    return killed


def test_a_cluster_for_a_while(tiny_retriever, write_tone, tmp_path, caplog):
    """Where none runs, one is started, which ends with the build."""
    if is_running():
        pytest.skip("a Ray cluster runs on this machine")
    path = str(write_tone(tmp_path / "a.wav", seconds=2.0))
    unit = Unit(((path, digest_of(path)[0]),))
    spec = WorkerSpec({"style": str(tiny_retriever)}, Cutting(**WINDOWS))
    ((done, shard),) = ray_engine([unit], spec, n_workers=1)
    assert "no Ray cluster runs here" in caplog.text
    assert done == unit
    expected = spec.make()(unit)
    assert shard.table.equals(expected.table)
    assert len(shard.table) >= 2
    assert shard.vectors["style"].tobytes() == (
        expected.vectors["style"].tobytes()
    )
    until = time.monotonic() + 60
    while is_running() and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_running()


def test_same_files_though_an_actor_is_killed(
    cluster, small_units, killed, tiny_retriever, write_tone, tmp_path
):
    """An actor dies from SIGKILL after the first of twenty files."""
    audio = tmp_path / "audio"
    for i in range(17):
        write_tone(audio / f"{i:02d}.wav", 3.0 + i / 10, 150 + 20 * i, seed=i)
    write_tone(audio / "long.flac", seconds=30, hertz=300)
    write_tone(audio / "too_short.wav", seconds=0.01)
    (audio / "broken.wav").write_bytes(b"RIFF no audio at all")
    local, out = tmp_path / "local", tmp_path / "ray"
    options = {"cutting": WINDOWS, "progress": False}
    build_index(str(audio), local, str(tiny_retriever), **options)
    assert not killed
    report = build_index(
        *(str(audio), out, str(tiny_retriever)),
        engine="ray",
        address=cluster,
        **options,
    )
    assert len(killed) == 1
    assert not killed[0].is_running()
    assert (report.new, report.skipped) == (20, 2)
    assert_same_files(local, out)
    # What was connected is parted from again, and no actor stays.
    assert not is_connected()
    until = time.monotonic() + 60
    while actors() and time.monotonic() < until:
        time.sleep(0.1)
    assert not actors()


def test_same_files_of_voices(
    cluster, small_units, shared_data, tiny_retriever, tmp_path
):
    """Real speech, cut where somebody speaks, by one actor alone."""
    speech = shared_data / "ravdess" / "Actor_01"
    clips = [str(clip) for clip in sorted(speech.glob("*.flac"))[:4]]
    if len(clips) < 4:
        pytest.skip(f"no speech at {speech}")
    local, out = tmp_path / "local", tmp_path / "ray"
    options = {"progress": False, "n_workers": 1}
    build_index(clips, local, str(tiny_retriever), **options)
    # The cluster that runs on this machine is found.
    build_index(clips, out, str(tiny_retriever), engine="ray", **options)
    assert_same_files(local, out)
    with LocalStore(out) as store:
        assert len(store) >= 4


def test_what_the_user_can_mend(cluster, tiny_retriever, tmp_path):
    units = [Unit((("/a.wav", "d"),))]
    spec = WorkerSpec(
        {"style": str(tiny_retriever)},
        Cutting(**WINDOWS),
        fingerprints={"style": "another model"},
    )
    with pytest.raises(MendableError, match="copy the retriever's folder"):
        list(ray_engine(units, spec, address=cluster))
    gpu = WorkerSpec(spec.sources, spec.cutting, device="cuda:0")
    with pytest.raises(RayEngineError, match="no GPU to spare"):
        list(ray_engine(units, gpu, address=cluster))
    with pytest.raises(RayEngineError, match="no Ray cluster answers at"):
        list(ray_engine(units, spec, address="127.0.0.1:1"))
    assert list(ray_engine([], spec)) == []
    assert not is_connected()


def test_a_unit_that_kills_its_actor(cluster):
    """Such as one that needs too much memory: not tried for ever."""

    class Deadly(WorkerSpec):
        def make(self):
            return lambda unit: os._exit(1)

    units = [Unit((("/a.wav", "d"),))]
    with pytest.raises(RayEngineError, match="could not go on.*is kept"):
        list(ray_engine(units, Deadly({}, None), address=cluster))
    assert not is_connected()


def test_a_source_that_is_no_folder(tiny_retriever, write_tone, tmp_path):
    """Refused before anything is started."""
    retriever = EncoderRetriever.from_hparams(str(tiny_retriever))
    retriever.source = None
    write_tone(tmp_path / "audio" / "a.wav")
    with pytest.raises(MendableError, match="folder or hub id"):
        build_index(
            *(str(tmp_path / "audio"), tmp_path / "index", retriever),
            engine="ray",
            cutting=WINDOWS,
            progress=False,
        )
    assert not is_connected()
