"""What Prometheus may ask: counted as things happen, and read off the engines when it asks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sambay.engine import RequestOutput
from sambay.server.models import Models, ServedModel

__all__ = ["Metrics", "ModelMetrics"]

_WINDOW_S = 10
"""Tokens a second are those of so many last seconds."""

_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)


class ModelMetrics:
    """What is counted of one model, in the event loop.

    Args:
        metrics: to which it belongs.
        name: of the model.
    """

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._prompt = metrics.prompt_tokens.labels(name)
        self._cached = metrics.cached_tokens.labels(name)
        self._hits = metrics.cache_hits.labels(name)
        self._generated = metrics.generated_tokens.labels(name)
        self._first = metrics.first_token.labels(name)
        self._between = metrics.between_tokens.labels(name)
        self._recent: deque[list[int]] = deque()  # seconds of the clock, and the tokens that each of them brought

    def begin(self, output: RequestOutput, seconds: float) -> None:
        """A prompt has its first token.

        Args:
            output: of the prompt.
            seconds: since the HTTP request arrived.
        """
        cached = output.cached_tokens or 0
        self._prompt.inc(len(output.prompt_token_ids))
        self._cached.inc(cached)
        self._hits.inc(cached > 0)
        self._first.observe(seconds)

    def token(self, seconds: float | None) -> None:
        """A token has come.

        Args:
            seconds: since the one before it in its completion, None for the first.
        """
        self._generated.inc()
        if seconds is not None:
            self._between.observe(seconds)
        now = int(time.monotonic())
        if not self._recent or self._recent[-1][0] != now:
            self._forget(now)
            self._recent.append([now, 0])
        self._recent[-1][1] += 1

    def tokens_per_second(self) -> float:
        """Of the last whole seconds."""
        now = int(time.monotonic())
        self._forget(now)
        return sum(count for second, count in self._recent if second < now) / _WINDOW_S

    def _forget(self, now: int) -> None:
        while self._recent and self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()


class _Engines(Collector):
    """What the engines know of themselves, read when it is asked for; numbers only, so that no lock is needed.

    Args:
        metrics: of the models.
        models: that are served.
    """

    def __init__(self, metrics: Metrics, models: Models) -> None:
        self._metrics, self._models = metrics, models

    def collect(self) -> Iterator[Metric]:
        """The figures of now; Prometheus' client calls it."""
        gauges = {
            name: GaugeMetricFamily(f"sambay_{name}", text, labels=["model"])
            for name, text in (
                ("sequences_running", "Sequences that compute."),
                ("sequences_waiting", "Sequences that wait for a place, parked ones too."),
                ("sequences_limit", "Sequences that run at once at most."),
                ("tokens_per_second", f"Tokens generated in a second, over the last {_WINDOW_S}."),
                ("memory_budget_bytes", "What all states may take."),
                ("memory_used_bytes", "What running and parked sequences take of it."),
                ("memory_cached_bytes", "What the prefix cache takes, and gives up where it is needed."),
                ("prefix_cache_snapshots", "States that the prefix cache holds."),
            )
        }
        counters = {
            name: CounterMetricFamily(f"sambay_{name}", text, labels=["model"])
            for name, text in (
                ("parkings", "Sequences that made way for others."),
                ("draft_tokens", "Tokens that speculation computed at a guess."),
                ("accepted_draft_tokens", "Of these, tokens that came."),
            )
        }
        for served in self._models:
            for name, value in self._figures(served).items():
                gauges[name].add_metric([served.name], value)
            engine = served.llm.engine
            counts = {
                "parkings": engine.scheduler.parkings,
                "draft_tokens": engine.drafted,
                "accepted_draft_tokens": engine.accepted,
            }
            for name, value in counts.items():
                counters[name].add_metric([served.name], value)
        yield from gauges.values()
        yield from counters.values()

    def _figures(self, served: ServedModel) -> dict[str, float]:
        engine = served.llm.engine
        pool, scheduler, prefix = engine.pool, engine.scheduler, engine.keeper.prefix
        page, running = pool.shared.tiles.page_bytes, len(scheduler.running)
        pages, free, idle = pool.shared.tiles.pages, len(pool.shared.free), pool.shared.idle
        return {
            "sequences_running": running,
            "sequences_waiting": len(scheduler.waiting),
            "sequences_limit": scheduler.max_sequences,
            "tokens_per_second": self._metrics.of(served.name).tokens_per_second(),
            "memory_budget_bytes": engine.memory,
            "memory_used_bytes": (pages - free - idle) * page + running * pool.fixed_nbytes,
            "memory_cached_bytes": idle * page,
            "prefix_cache_snapshots": 0 if prefix is None else len(prefix),
        }


class Metrics:
    """All that is counted of a server, in a registry of its own.

    Args:
        models: that are served.
    """

    def __init__(self, models: Models) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "sambay_http_requests", "Requests answered.", ["endpoint", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "sambay_http_request_seconds", "From a request to the end of its answer.", ["endpoint"], registry=registry
        )
        of_model = ["model"]
        self.prompt_tokens = Counter("sambay_prompt_tokens", "Tokens of prompts.", of_model, registry=registry)
        self.cached_tokens = Counter(
            "sambay_cached_tokens", "Of these, tokens that were not computed again.", of_model, registry=registry
        )
        self.cache_hits = Counter(
            "sambay_prefix_cache_hits", "Prompts that the prefix cache had a beginning of.", of_model, registry=registry
        )
        self.generated_tokens = Counter("sambay_generated_tokens", "Tokens generated.", of_model, registry=registry)
        self.first_token = Histogram(
            "sambay_time_to_first_token_seconds",
            "From a request to its first token.",
            of_model,
            buckets=_FIRST,
            registry=registry,
        )
        self.between_tokens = Histogram(
            "sambay_inter_token_seconds",
            "From one token of a completion to the next.",
            of_model,
            buckets=_BETWEEN,
            registry=registry,
        )
        self._of = {one.name: ModelMetrics(self, one.name) for one in models}
        registry.register(_Engines(self, models))

    def of(self, name: str) -> ModelMetrics:
        """Those of a model that is served."""
        return self._of[name]

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """What Prometheus reads, and its media type.

        Args:
            accept: the header with which it asked.
        """
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
