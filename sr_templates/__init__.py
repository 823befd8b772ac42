"""The DICOM objects we make from findings and source datasets."""
