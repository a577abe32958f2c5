"""Where steps run: this thread, a Dask cluster of our own, or one that exists.

Nothing here decides what runs when: Dask's scheduler does.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import cloudpickle

import attribench
from attribench.engine.claim import owned_name
from attribench.engine.store import ArtifactStore, write_text_whole
from attribench.engine.work import Outcome, Stopped, perform
from attribench.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

Workers = int | Literal["auto"]

CONNECT_SECONDS = 20

THIS_MACHINE = "127.0.0.1:0"

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": 2**30, "MALLOC_TRIM_THRESHOLD_": 2**32, "MALLOC_ARENA_MAX": 1}
"""Environment of worker processes: freed memory is kept for the next tensor, and not given back and faulted in again.

Dask has its workers give back all beyond 64 kB, which cost a third of their processor time (docs/decisions/005).
"""

PLUGIN_FILES = "attribench_plugin_"
"""How `attribench.plugins.add_file` names the modules that it makes."""


def connect(workers: Workers, scheduler: str | None, device: str, store: ArtifactStore) -> AbstractContextManager[Client | None]:
    """A client of the cluster that a run asks for, or None if steps run in the calling thread.

    Raises UsageError for a scheduler that does not answer or whose workers do not fit, and for CUDA
    workers without dask-cuda.
    """
    if scheduler is not None:
        return _existing_cluster(scheduler, device, store)
    if workers == 0:
        return nullcontext()
    one_gpu = workers == 1 or (workers == "auto" and importlib.util.find_spec("dask_cuda") is None)
    if device.startswith("cuda") and not one_gpu:
        return _cuda_cluster(workers, store)
    return _local_cluster(workers, device, store)


@contextmanager
def _local_cluster(workers: Workers, device: str, store: ArtifactStore) -> Iterator[Client]:
    """`auto`: one process per core. A number: so many threads of this process, which import torch once between them
    but share Python's lock (docs/decisions/005).

    With CUDA: one thread that has the GPU, for a machine without dask-cuda.
    """
    import dask.config
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    on_gpu = device.startswith("cuda")
    processes = workers == "auto" and not on_gpu and CPU_COUNT > 1
    environment = dask.config.get("distributed.nanny.pre-spawn-environ") | ALLOCATOR  # it is there once distributed is imported
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        _started(
            LocalCluster,
            store,
            processes=processes,
            n_workers=1 if on_gpu else CPU_COUNT if workers == "auto" else workers,
            resources={"GPU": 1} if on_gpu else None,
            dashboard_address=None,
            # Dask serves its health page all the same: at a free port, and to this machine alone
            scheduler_kwargs={"dashboard_address": THIS_MACHINE},
            worker_dashboard_address=THIS_MACHINE,
            memory_limit=0,
        ) as client,
    ):
        try:
            yield client
        except BaseException:
            # A thread cannot be stopped: without this, control-C would wait for steps that report nothing.
            for worker in () if processes else list(client.cluster.workers.values()):
                client.cluster.sync(worker.close, executor_wait=False)
            raise


def _cuda_cluster(workers: Workers, store: ArtifactStore) -> AbstractContextManager[Client]:
    """One process per GPU, each seeing its own as `cuda:0`."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(
            "several processes on CUDA need dask-cuda, which is not installed; "
            "install the extra (`pip install -e '.[cuda]'`), or use --workers 1 for one GPU"
        ) from error
    n_workers = None if workers == "auto" else workers
    return _started(LocalCUDACluster, store, n_workers=n_workers, dashboard_address=THIS_MACHINE, resources={"GPU": 1})


@contextmanager
def _started(kind: Callable[..., Any], store: ArtifactStore, **options: Any) -> Iterator[Client]:
    """A client of a cluster of our own, with one thread a worker, whose files lie in the store until it ends."""
    from distributed import Client

    clean_sys_path()  # processes are spawned with this one's path
    with (
        TemporaryDirectory(dir=store.root / "partial", prefix=owned_name("dask"), ignore_cleanup_errors=True) as folder,
        kind(threads_per_worker=1, local_directory=folder, silence_logs=logging.ERROR, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _existing_cluster(address: str, device: str, store: ArtifactStore) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--scheduler {address}: no Dask scheduler answers there ({type(error).__name__}); "
            "start one with `dask scheduler`, or leave the option out"
        ) from error
    with client:
        _check_workers(client, address, device, store)
        yield client


def _check_workers(client: Client, address: str, device: str, store: ArtifactStore) -> None:
    """Refuse workers that would compute something else, or store it elsewhere."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise UsageError(f"--scheduler {address}: it has no worker; start one with `dask worker {address}`") from error
    marker, content = store.root / f"marker-{uuid.uuid4().hex}", uuid.uuid4().hex
    write_text_whole(marker, content)
    try:
        seen = client.run(_look_around, marker)
    except Exception as error:
        raise UsageError(
            f"--scheduler {address}: its workers cannot run attribench ({type(error).__name__}: {error}); "
            f"install attribench-diffusion {attribench.__version__} where they run"
        ) from error
    finally:
        marker.unlink()
    for worker, (version, found) in seen.items():
        if version != attribench.__version__:
            raise UsageError(
                f"--scheduler {address}: worker {worker} has attribench {version}, this is {attribench.__version__}; "
                "install the same version on both"
            )
        if found != content:
            raise UsageError(
                f"--scheduler {address}: worker {worker} does not see the store {store.root}; "
                "choose a --store that every worker mounts at the same path"
            )
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if device.startswith("cuda") and not any(worker["resources"].get("GPU") for worker in workers):
        raise UsageError(
            f"--scheduler {address}: no worker offers a GPU; start one with "
            f"`dask worker {address} --nthreads 1 --resources GPU=1`"
        )


def _look_around(marker: Path) -> tuple[str, str | None]:
    return attribench.__version__, marker.read_text() if marker.exists() else None


def clean_sys_path() -> None:
    """Take the root of a checkout off the import path.

    Its `datasets/` and `metrics/` would shadow the packages of those names, and transformers would
    believe Hugging Face's `datasets` installed. attribench itself is found through its installation.
    """
    root = Path(attribench.__file__).parent.parent
    ours = importlib.util.find_spec("attribench.datasets")
    if ours is None or ours.origin is None or Path(ours.origin).parent.parent != root:
        return
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root.resolve()]


# ------------------------------------------------------------------------------------- on a worker


def pack(job: object) -> bytes:
    """A job as bytes. Classes from `--plugin` files travel by value: no worker could import them."""
    plugins = [module for name, module in sys.modules.copy().items() if name.startswith(PLUGIN_FILES)]
    for module in plugins:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(job)
    finally:
        for module in plugins:
            cloudpickle.unregister_pickle_by_value(module)


def perform_on_worker(packed: bytes, root: Path, topic: str, number: int, upstream: Sequence[Outcome]) -> Outcome:
    """The task that Dask runs: a step by its number in the plan. Its progress is logged as events of `topic`."""
    from distributed import get_worker

    clean_sys_path()  # before anything that a job names is imported
    job = cloudpickle.loads(packed)
    worker = get_worker()
    task = worker.get_current_task()

    def report(done: int, total: int, note: str) -> None:
        state = worker.state.tasks.get(task)
        if state is None or state.state == "cancelled":
            raise Stopped
        worker.log_event(topic, [number, done, total, note])

    try:
        report(0, 0, "")
        return perform(job, root, upstream, report)
    except Stopped:
        return Outcome("failed", reason="the run was cancelled")
