"""The plain functions that the stages of a job call."""
