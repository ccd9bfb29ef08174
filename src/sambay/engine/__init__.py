"""The engine: requests in, tokens out."""

from sambay.engine.core import Engine
from sambay.engine.llm import LLM
from sambay.engine.outputs import CompletionOutput, Logprob, RequestOutput, StreamEvent
from sambay.engine.params import SamplingParams, StructuredOutputsParams

__all__ = [
    "LLM",
    "CompletionOutput",
    "Engine",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
    "StreamEvent",
    "StructuredOutputsParams",
]
