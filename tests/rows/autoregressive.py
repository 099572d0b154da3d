"""Rows of the generic table: autoregressive models."""

ROWS = {}
