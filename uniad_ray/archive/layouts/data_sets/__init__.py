"""Layouts of data sets, one file each: `<name>.py` defines `LAYOUT`. A new file is a new layout of `--layout`."""
