"""Mirroring: many images between registries through an Engine, or between two Engines. On `ImageService` alone."""

from ._options import OnMirrorFrame
from .cluster import mirror_on_cluster
from .jobs import MirrorFailure, MirrorJob, MirrorOutcome, MirrorStatus, MirrorSummary, Retry
from .plan import CredentialNames, MirrorPlan
from .run import mirror
from .transfers import OnTransferBytes, TransferOutcome, transfer

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
