"""Compute engines: what the distributed ones do to rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tests.feast_contracts.tiny import HOUR, NOON


class Rows:
    """Stands for a Ray dataset of one batch: what the filter does to it, without a cluster."""

    def __init__(self, batch: pd.DataFrame) -> None:
        self.batch = batch

    def map_batches(self, function: Any, **_: Any) -> Rows:
        return Rows(function(self.batch))


def test_the_ray_engine_drops_rows_older_than_the_ttl_by_the_clock_when_it_materializes() -> None:
    pytest.importorskip("ray", reason="pip install 'leadre[scale]'")
    from feast.infra.compute_engines.dag.model import DAGFormat
    from feast.infra.compute_engines.dag.node import DAGNode
    from feast.infra.compute_engines.dag.value import DAGValue
    from feast.infra.compute_engines.ray.config import RayComputeEngineConfig
    from feast.infra.compute_engines.ray.nodes import RayFilterNode

    read = DAGNode.__new__(type("Read", (DAGNode,), {"execute": lambda *_: None}))
    DAGNode.__init__(read, "read")
    rows = Rows(pd.DataFrame({"user_id": [1, 2], "at": [NOON, pd.Timestamp.now(tz="UTC")]}))
    columns = SimpleNamespace(timestamp_column="at")
    node = RayFilterNode("filter", columns, RayComputeEngineConfig(), ttl=24 * HOUR)
    node.add_input(read)
    context = SimpleNamespace(node_outputs={"read": DAGValue(data=rows, format=DAGFormat.RAY)})
    assert node.execute(context).data.batch["user_id"].tolist() == [2]
