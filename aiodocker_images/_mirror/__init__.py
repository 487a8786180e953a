"""Mirroring: many images between registries through an Engine, or between two Engines. On `ImageService` alone."""

from .cluster import mirror_on_cluster
from .engine_to_engine import OnTransferBytes, TransferOutcome, transfer
from .entry import mirror
from .jobs import MirrorFailure, MirrorJob, MirrorOutcome, MirrorStatus, MirrorSummary, Retry
from .options import OnMirrorFrame
from .plan import CredentialNames, MirrorPlan

__all__ = [
    "CredentialNames",
    "MirrorFailure",
    "MirrorJob",
    "MirrorOutcome",
    "MirrorPlan",
    "MirrorStatus",
    "MirrorSummary",
    "OnMirrorFrame",
    "OnTransferBytes",
    "Retry",
    "TransferOutcome",
    "mirror",
    "mirror_on_cluster",
    "transfer",
]
