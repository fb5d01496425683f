"""The rule for growth along the spine of a custom model."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from propagate.record.dataset import second_moment
from propagate.record.spine import spine
from propagate.types import Direction
from propagate.verdicts import thresholds
from propagate.verdicts.findings import Finding, Verdict
from propagate.verdicts.growth import growth, in_words
from propagate.verdicts.site_rules.peers import without_steps
from propagate.verdicts.site_rules.site_finding import site_finding


def grown(record: xr.Dataset, direction: Direction) -> Iterator[Finding]:
    """Vanishing or exploding: growth along the spine times its length against what is fine."""
    chain = spine(record)
    chain = chain.isel(site=np.isfinite(second_moment(chain, direction).values))
    layers = chain.sizes["site"] - 1
    if layers < thresholds.PEERS:
        return
    rise = growth(without_steps(second_moment(chain, direction).values)[None], direction)
    limit = thresholds.FINE_DECADES / layers
    if rise.high < -limit:
        verdict = Verdict.VANISHING
    elif rise.low > limit:
        verdict = Verdict.EXPLODING
    else:
        return
    stream = "residual stream" if (chain["kind"] == "add").all() else "layers"
    reason = f"{in_words(rise)}, {rise.total:+.2f} decades along {layers + 1} {stream}"
    last = int(chain["site"].values[-1 if direction == "forward" else 0])
    yield site_finding(record, last, direction, verdict, reason, rise=rise)
