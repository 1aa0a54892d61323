"""The verbs, one file each: its options, its call, and the printer of its report. A new file is a new verb."""
