"""Depth is counted along a residual stream where there is one, and else along the layers."""

import numpy as np
import pytest
import xarray as xr

from propagate.record.spine import STREAM_ADDITIONS, STREAM_SHARE, spine


def model(layers: int, additions: int) -> xr.Dataset:
    """Layers with a parameter, each at a depth of its own, and additions behind the first ones."""
    rows = []
    for depth in range(1, layers + 1):
        rows.append((f"w{depth}", "matmul", f"w{depth}", depth))
        rows += [(f"a{depth}", "add", "", depth)] if depth <= additions else []
    columns = dict(
        zip(("name", "kind", "parameter", "depth"), zip(*rows, strict=True), strict=True)
    )
    return xr.Dataset(coords={name: ("site", np.array(values)) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("layers", "additions", "kind"),
    [
        (STREAM_ADDITIONS, STREAM_ADDITIONS, "add"),
        (STREAM_ADDITIONS, STREAM_ADDITIONS - 1, "matmul"),
        (STREAM_SHARE * 5, 5, "add"),
        (STREAM_SHARE * 5, 4, "matmul"),
        (9, 0, "matmul"),
    ],
)
def test_additions_are_a_stream_if_there_are_enough(layers, additions, kind):
    chain = spine(model(layers, additions))
    assert set(chain["kind"].values) == {kind}
    assert chain.sizes["site"] == (additions if kind == "add" else layers)


def test_the_last_of_several_sites_at_one_depth_is_taken_and_depth_rises():
    record = model(6, 5)
    record["depth"] = "site", record["depth"].values // 2
    chain = spine(record)
    assert chain["name"].values.tolist() == ["w1", "w3", "w5", "w6"], "three additions are few"
    assert np.all(np.diff(chain["depth"].values) > 0)


def test_products_of_two_signals_are_no_layers():
    record = model(6, 0)
    record["parameter"] = "site", np.array(["w1", "w2", "", "", "w5", "w6"])
    assert spine(record)["name"].values.tolist() == ["w1", "w2", "w5", "w6"]
