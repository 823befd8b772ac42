"""Volumes in, findings out; no DICOM, no network."""
