"""What has arrived and what was done about it: files and tables."""
