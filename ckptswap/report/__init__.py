"""Data → text: terminal tables, csv, md and json. Pure functions that return a `str`; the command line prints."""
