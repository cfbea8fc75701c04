"""One job at a time on the GPU, across all flows of a Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext, TaskRunContext

from datasets.errors import KaobakoError

GPU_LIMIT = "gpu"  # the name of the global concurrency limit; `kaobako serve` creates it


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold the GPU's slot for the body; no wait where there is no GPU, or no Prefect run to share it with.

    Strict: a server without the limit is an error, not a silent free-for-all (reference: Prefect's global
    concurrency limits). Create it with `prefect gcl create gpu --limit 1`.
    """
    import torch

    inside_run = FlowRunContext.get() is not None or TaskRunContext.get() is not None
    if not inside_run or not torch.cuda.is_available():
        yield
        return
    with ExitStack() as stack:
        try:
            # a server that goes away must not end weeks of training: then the slot is lost, not the work
            slot = concurrency(GPU_LIMIT, occupy=1, strict=True, raise_on_lease_renewal_failure=False)
            stack.enter_context(slot)
        except ConcurrencySlotAcquisitionError as error:
            raise KaobakoError(
                f"the Prefect server has no concurrency limit {GPU_LIMIT!r}, which keeps two jobs off one GPU. "
                f"Create it: prefect gcl create {GPU_LIMIT} --limit 1"
            ) from error
        yield
