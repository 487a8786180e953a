"""Tests that inject faults: cuts, hostile answers, cancellations, full disks."""
