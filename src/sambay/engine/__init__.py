"""The engine: requests in, tokens out."""

from sambay.engine.async_engine import AsyncEngine, AsyncEventStream
from sambay.engine.core import Engine
from sambay.engine.llm import LLM
from sambay.engine.outputs import CompletionOutput, Logprob, RequestOutput, StreamEvent
from sambay.engine.params import SamplingParams, StructuredOutputsParams

__all__ = [
    "LLM",
    "AsyncEngine",
    "AsyncEventStream",
    "CompletionOutput",
    "Engine",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
    "StreamEvent",
    "StructuredOutputsParams",
]
