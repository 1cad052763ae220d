"""Metrics of a server in the format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from codots.agent.gateway import Gateway
from codots.agent.lift import Lift, lift_of
from codots.agent.quarantine import count_waiting
from codots.agent.records import World

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Buckets of the time that codots adds to a chat."""
LIFT = {
    "codots_lift": "Reward with the context minus reward without it",
    "codots_lift_low": "Lower end of the 95% interval of the lift",
    "codots_lift_high": "Upper end of the 95% interval of the lift",
}
"""Metrics of the worlds whose lift is known."""


class Metrics(Collector):
    """Counts of one gateway, its updates and its upstream."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self._registry = gateway, CollectorRegistry()
        self._lifts: dict[str, tuple[int, Lift]] = {}
        added = "Seconds that codots added to an answered chat"
        histogram = Histogram("codots_added_seconds", added, buckets=SECONDS, registry=self._registry)
        gateway.on_added = histogram.observe
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are counted elsewhere."""
        updater, upstream = self.gateway.updater, self.gateway.upstream
        yield _counter("codots_chats", "Chats by how they ended", "outcome", self.gateway.chats)
        yield _counter("codots_updates", "Updates of contexts by how they ended", "outcome", updater.updates)
        yield _counter("codots_upstream_failures", "Failed tries of the upstream", "kind", upstream.failures)
        worlds = self.gateway.store.worlds()
        due = len(self.gateway.store.worlds_due())
        waiting = GaugeMetricFamily("codots_quarantined", "Contexts that wait for a decision", labels=["world"])
        for world, count in count_waiting(self.gateway.store).items():
            waiting.add_metric([world], count)
        yield waiting
        yield GaugeMetricFamily("codots_worlds", "Worlds in the store", len(worlds))
        yield GaugeMetricFamily("codots_worlds_due", "Worlds with an update due", due)
        yield CounterMetricFamily("codots_tasks", "Tasks started", sum(world.tasks for world in worlds))
        yield CounterMetricFamily("codots_finished_tasks", "Tasks finished", sum(world.finished for world in worlds))
        if self.gateway.null_share:
            yield from self._lift(worlds)

    def _lift(self, worlds: list[World]) -> Iterator[Metric]:
        """Yield the lift of each world where it is known. It is computed again after a finish."""
        for world in worlds:
            if world.name not in self._lifts or self._lifts[world.name][0] != world.finished:
                self._lifts[world.name] = (world.finished, lift_of(self.gateway.store, world.name))
        found = [self._lifts[world.name][1] for world in worlds]
        known = [(one.world, (one.lift, *one.interval)) for one in found if one.lift is not None and one.interval]
        for at, (name, what) in enumerate(LIFT.items()):
            family = GaugeMetricFamily(name, what, labels=["world"])
            for of, values in known:
                family.add_metric([of], values[at])
            yield family


def _counter(name: str, what: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, what, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
