"""What the probes find out, as plain frozen values: all that a check may read, and what its tests write as literals."""

from __future__ import annotations

from checker.facts.divergence import DivergenceFacts, Interval
from checker.facts.parts import BlockFact, ModuleErrorFact, ModuleErrorFacts
from checker.facts.running import (
    ArchitectureFacts,
    DenseParameter,
    LoadedModule,
    LoadFacts,
    OutputFacts,
    RoundtripFacts,
    Snapshot,
    StructureFacts,
)
from checker.facts.static import (
    ArtifactFacts,
    ByteRow,
    CodeFact,
    ErrorFact,
    ExpectedTensor,
    Flaw,
    MemoryFact,
    ModuleFact,
    ScaleFact,
    SkipEntry,
    StoredWeight,
    TensorFact,
    TiedFact,
    WeightFacts,
)
from checker.facts.texts import Continuation, GeneratedText, KnownText, TextFacts

__all__ = [
    "ORDER",
    "ArchitectureFacts",
    "ArtifactFacts",
    "BlockFact",
    "ByteRow",
    "CodeFact",
    "Continuation",
    "DenseParameter",
    "DivergenceFacts",
    "ErrorFact",
    "ExpectedTensor",
    "Flaw",
    "GeneratedText",
    "Interval",
    "KnownText",
    "LoadFacts",
    "LoadedModule",
    "MemoryFact",
    "ModuleErrorFact",
    "ModuleErrorFacts",
    "ModuleFact",
    "OutputFacts",
    "RoundtripFacts",
    "ScaleFact",
    "SkipEntry",
    "Snapshot",
    "StoredWeight",
    "StructureFacts",
    "TensorFact",
    "TextFacts",
    "TiedFact",
    "WeightFacts",
]

ORDER: tuple[type, ...] = (
    ArtifactFacts,
    WeightFacts,
    ArchitectureFacts,
    LoadFacts,
    StructureFacts,
    OutputFacts,
    ModuleErrorFacts,
    DivergenceFacts,
    TextFacts,
    RoundtripFacts,
)
"""Cheapest first: the order in which facts are gathered, and so in which checks run."""
