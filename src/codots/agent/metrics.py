"""Metrics of a server in the format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from codots.agent.gateway import Gateway

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Buckets of the time that codots adds to a chat."""


class Metrics(Collector):
    """Counts of one gateway, its updates and its upstream."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self._registry = gateway, CollectorRegistry()
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
        yield GaugeMetricFamily("codots_worlds", "Worlds in the store", len(worlds))
        yield GaugeMetricFamily("codots_worlds_due", "Worlds with an update due", due)
        yield CounterMetricFamily("codots_tasks", "Tasks started", sum(world.tasks for world in worlds))
        yield CounterMetricFamily("codots_finished_tasks", "Tasks finished", sum(world.finished for world in worlds))


def _counter(name: str, what: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, what, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
