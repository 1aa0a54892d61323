"""The night: ingest what is new, score it, look for drift, report, raise alarms and keep the history."""
