"""Slow code that gathers facts. Only load, structure, outputs and roundtrip import torch, inside their functions."""
