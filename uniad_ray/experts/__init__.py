"""Experts: each turns a perception into evidence of an anomaly."""
