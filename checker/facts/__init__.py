"""What the probes find out, as plain frozen values: all that a check may read, and what its tests write as literals."""

from __future__ import annotations

from checker.facts.running import (
    ArchitectureFacts,
    DenseParameter,
    GeneratedText,
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

__all__ = [
    "ORDER",
    "ArchitectureFacts",
    "ArtifactFacts",
    "ByteRow",
    "CodeFact",
    "DenseParameter",
    "ErrorFact",
    "ExpectedTensor",
    "Flaw",
    "GeneratedText",
    "LoadFacts",
    "LoadedModule",
    "MemoryFact",
    "ModuleFact",
    "OutputFacts",
    "RoundtripFacts",
    "ScaleFact",
    "SkipEntry",
    "Snapshot",
    "StoredWeight",
    "StructureFacts",
    "TensorFact",
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
    RoundtripFacts,
)
"""Cheapest first: the order in which facts are gathered, and so in which checks run."""
