"""Mirroring: many images between registries through an Engine, or between two Engines. On `ImageService` alone."""

from .jobs import MirrorFailure, MirrorJob, MirrorOutcome, MirrorStatus, MirrorSummary, Retry
from .plan import CredentialNames, MirrorPlan
from .run import mirror
from .transfer import TransferOutcome, transfer

__all__ = [
    "CredentialNames",
    "MirrorFailure",
    "MirrorJob",
    "MirrorOutcome",
    "MirrorPlan",
    "MirrorStatus",
    "MirrorSummary",
    "Retry",
    "TransferOutcome",
    "mirror",
    "transfer",
]
