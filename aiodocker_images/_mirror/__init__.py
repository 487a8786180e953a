"""Mirroring: many images between registries through an Engine, or between two Engines. On `ImageService` alone."""

from .cluster import mirror_on_cluster
from .engine_to_engine import TransferOutcome, TransferProgress, transfer
from .entry import mirror
from .jobs import MirrorFailure, MirrorJob, MirrorOutcome, MirrorProgress, MirrorStatus, MirrorSummary
from .plan import CredentialNames, MirrorPlan

__all__ = [
    "CredentialNames",
    "MirrorFailure",
    "MirrorJob",
    "MirrorOutcome",
    "MirrorPlan",
    "MirrorProgress",
    "MirrorStatus",
    "MirrorSummary",
    "TransferOutcome",
    "TransferProgress",
    "mirror",
    "mirror_on_cluster",
    "transfer",
]
